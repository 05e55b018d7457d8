//! Who follows a relation that is replaced, by which columns, and who cannot.

use super::*;
use crate::{Conflict, Fragment, OnError, Output, Properties, Term};
use arrow_schema::DataType;
use std::sync::Arc;

fn column(name: &str, data_type: DataType) -> Column {
    Column {
        name: name.into(),
        data_type,
        nullable: true,
        default: None,
        sql_type: String::new(),
    }
}

fn relation(id: u32, name: &str, kind: RelationKind, columns: &[&str]) -> Relation {
    let columns = columns.iter().map(|c| column(c, DataType::Int64));
    Relation {
        id: RelationId(id),
        schema_name: "public".into(),
        name: name.into(),
        kind,
        columns: columns.collect(),
        key: Vec::new(),
        key_declared: false,
        append_only: false,
        watermark: None,
        connector: None,
        logs_rows: None,
        generated: Vec::new(),
        conflict: Conflict::Overwrite,
        on_error: OnError::Log,
        snapshot: true,
        definition: String::new(),
        query: String::new(),
        named: Vec::new(),
        depends_on: Vec::new(),
        owner: String::new(),
        comment: None,
        job: None,
        created_at: None,
        altered: Default::default(),
        unreadable: None,
    }
}

/// A job that reads these columns of a relation, which it keeps.
fn reader(id: u32, name: &str, of: &Relation, columns: &[usize]) -> Relation {
    let names: Vec<&str> = columns
        .iter()
        .map(|c| of.columns[*c].name.as_str())
        .collect();
    let mut reader = relation(id, name, RelationKind::MaterializedView, &names);
    let fields = columns.iter().map(|c| of.columns[*c].sql_field("c"));
    let schema = Arc::new(arrow_schema::Schema::new(fields.collect::<Vec<_>>()));
    let node = |op, inputs| Node {
        op,
        inputs,
        schema: schema.clone(),
        properties: Properties::default(),
    };
    let tap = Op::Tap {
        relation: of.id,
        columns: columns.to_vec(),
    };
    let kept = Op::Materialize {
        key: None,
        append_only: false,
        table: 0,
    };
    reader.job = Some(JobPlan {
        relation: reader.id,
        fragments: vec![Fragment {
            id: 0,
            root: node(kept, vec![node(tap, Vec::new())]),
            output: Output::Relation,
        }],
        tables: 1,
        watermarks: Vec::new(),
    });
    reader.depends_on = vec![of.id];
    reader
}

fn catalog(relations: &[&Relation]) -> Catalog {
    let relations = relations
        .iter()
        .map(|r| (r.id, Arc::new(Relation::clone(r))));
    Catalog {
        relations: relations.collect(),
        ..Catalog::default()
    }
}

/// Numbers from 100 on, and a plan that was made before.
struct Hundreds(Option<Relation>);

impl Maker for Hundreds {
    fn number(&mut self, of: &Relation) -> Result<RelationId> {
        Ok(RelationId(of.id.0 + 100))
    }

    fn plan(
        &mut self,
        _: &Relation,
        after: &Relation,
        _: &[(RelationId, Relation)],
    ) -> Result<Option<Relation>> {
        let planned = self.0.take();
        Ok(planned.map(|planned| Relation {
            depends_on: after.depends_on.clone(),
            ..planned
        }))
    }
}

fn follow_from(catalog: &Catalog, old: &Relation, new: &Relation) -> Result<Followers> {
    follow(catalog, old, new, &mut Hundreds(None))
}

fn base() -> (Relation, Relation) {
    let t = relation(1, "t", RelationKind::Table, &["a", "b", "c"]);
    let v = reader(2, "v", &t, &[0, 1, 2]);
    (t, v)
}

/// Another relation named v, with these columns.
fn new(columns: &[&str]) -> Relation {
    Relation {
        depends_on: vec![RelationId(1)],
        ..reader(
            50,
            "v",
            &relation(1, "t", RelationKind::Table, columns),
            &(0..columns.len()).collect::<Vec<_>>(),
        )
    }
}

#[test]
fn each_is_made_behind_what_it_reads_by_the_columns_of_the_same_names() {
    let (t, v) = base();
    // A number says nothing of the order.
    let y = reader(9, "y", &v, &[2, 0]);
    let x = reader(4, "x", &y, &[1]);
    let all = catalog(&[&t, &v, &x, &y]);
    let followers = follow_from(&all, &v, &new(&["new", "a", "c"])).unwrap();
    let made: Vec<(u32, u32)> = followers
        .made
        .iter()
        .map(|m| (m.old.0, m.relation.id.0))
        .collect();
    assert_eq!(made, [(9, 109), (4, 104)]);
    let (y, x) = (&followers.made[0].relation, &followers.made[1].relation);
    let taps = |r: &Relation| r.job.as_ref().unwrap().taps();
    assert_eq!(taps(y), [(RelationId(50), vec![2, 1])]);
    assert_eq!(taps(x), [(RelationId(109), vec![1])]);
    assert_eq!(
        (y.depends_on.as_slice(), x.depends_on.as_slice()),
        (&[RelationId(50)][..], &[RelationId(109)][..])
    );
    assert_eq!(y.job.as_ref().unwrap().relation, y.id);
    // What the text of y says of v it says of the columns that v had.
    assert_eq!(
        y.altered.known_as[&RelationId(50)],
        [("a".to_string(), 1), ("c".to_string(), 2)]
    );
    assert!(x.altered.is_nothing());
}

fn refusal(reader: &Relation, old: &Relation, new: &Relation) -> (SqlState, String) {
    let t = relation(1, "t", RelationKind::Table, &["a", "b", "c"]);
    let error = follow_from(&catalog(&[&t, old, reader]), old, new).unwrap_err();
    let detail = error.detail().unwrap().to_string();
    assert!(
        detail.contains(&format!(
            "{} {} depends on it.",
            reader.kind.name(),
            reader.name
        )),
        "{detail}"
    );
    (error.state(), detail)
}

#[test]
fn a_column_that_is_read_is_there_and_of_its_type() {
    let (_, v) = base();
    let y = reader(3, "y", &v, &[1]);
    let (state, detail) = refusal(&y, &v, &new(&["a", "c"]));
    assert_eq!(state, SqlState::DEPENDENT_OBJECTS);
    assert!(
        detail.contains("\"b\", which the new one does not have"),
        "{detail}"
    );
    let mut other = new(&["a", "b"]);
    other.columns[1].data_type = DataType::Utf8View;
    let (_, detail) = refusal(&y, &v, &other);
    assert!(
        detail.contains("\"b\", which is of another type"),
        "{detail}"
    );
    let (_, detail) = refusal(&y, &v, &new(&["c", "b", "a"]));
    assert!(detail.contains("in another order"), "{detail}");
    // What is not read may be whatever it is.
    other.columns[0].data_type = DataType::Utf8View;
    other.columns[1].data_type = DataType::Int64;
    let t = relation(1, "t", RelationKind::Table, &["a"]);
    follow_from(&catalog(&[&t, &v, &y]), &v, &other).unwrap();
    // A plain view may name every one.
    let plain = Relation {
        depends_on: vec![v.id],
        ..relation(3, "plain", RelationKind::View, &["a"])
    };
    assert_eq!(
        refusal(&plain, &v, &new(&["a", "b"])).0,
        SqlState::DEPENDENT_OBJECTS
    );
}

fn tap_of(reader: &mut Relation) -> &mut Node {
    &mut reader.job.as_mut().unwrap().fragments[0].root.inputs[0]
}

#[test]
fn what_a_plan_was_made_with_is_kept() {
    let (_, mut v) = base();
    let refused = |reader: &Relation, old: &Relation, new: &Relation, why: &str| {
        let (state, detail) = refusal(reader, old, new);
        assert_eq!(state, SqlState::FEATURE_NOT_SUPPORTED);
        assert!(detail.contains(why), "{detail}");
    };
    let mut keyed = reader(3, "y", &v, &[1, 0]);
    tap_of(&mut keyed).properties.key = Some(vec![1]);
    refused(&keyed, &v, &new(&["a", "b"]), "unique by (a)");
    let by = |key: Vec<usize>| Relation {
        key,
        ..new(&["a", "b"])
    };
    refused(&keyed, &v, &by(vec![0, 1]), "unique by (a)");
    let t = relation(1, "t", RelationKind::Table, &["a"]);
    follow_from(&catalog(&[&t, &v, &keyed]), &v, &by(vec![0])).unwrap();

    let mut grows = reader(3, "y", &v, &[0]);
    tap_of(&mut grows).properties.append_only = true;
    refused(&grows, &v, &new(&["a"]), "rows that only come");

    v.columns[0].nullable = false;
    let strict = reader(3, "y", &v, &[0]);
    refused(&strict, &v, &new(&["a"]), "never NULL");

    let timed = reader(3, "y", &v, &[1]);
    let watermark = crate::ColumnWatermark {
        column: 1,
        terms: Vec::<Term>::new(),
    };
    v.job.as_mut().unwrap().watermarks = vec![watermark];
    refused(&timed, &v, &new(&["a", "b"]), "watermark of column \"b\"");
}

#[test]
fn what_cannot_be_made_again_is_refused() {
    let (_, v) = base();
    let mut changes = reader(3, "y", &v, &[0]);
    let root = &mut changes.job.as_mut().unwrap().fragments[0].root;
    root.op = Op::Changelog {
        key: None,
        table: 0,
    };
    assert_eq!(
        refusal(&changes, &v, &new(&["a"])).0,
        SqlState::FEATURE_NOT_SUPPORTED
    );
    let subscription = Relation {
        kind: RelationKind::Subscription,
        ..reader(3, "s", &v, &[0])
    };
    assert_eq!(
        refusal(&subscription, &v, &new(&["a"])).0,
        SqlState::FEATURE_NOT_SUPPORTED
    );
    let (t, v) = base();
    let y = reader(3, "y", &v, &[0]);
    let circle = Relation {
        depends_on: vec![RelationId(3)],
        ..new(&["a"])
    };
    let error = follow_from(&catalog(&[&t, &v, &y]), &v, &circle).unwrap_err();
    assert_eq!(error.state(), SqlState("42P17"));
}

#[test]
fn a_plan_that_the_new_one_does_not_fit_is_made_of_the_text() {
    let (t, v) = base();
    let mut grows = reader(3, "y", &v, &[0]);
    tap_of(&mut grows).properties.append_only = true;
    let all = catalog(&[&t, &v, &grows]);
    let planned = Relation {
        key: vec![0],
        ..reader(103, "y", &new(&["a"]), &[0])
    };
    let mut maker = Hundreds(Some(planned.clone()));
    let followers = follow(&all, &v, &new(&["a"]), &mut maker).unwrap();
    let made = &followers.made[0];
    assert!(made.is_planned && made.relation.key == [0] && made.relation.job == planned.job);
    let mut other = planned;
    other.columns[0].data_type = DataType::Utf8View;
    let error = follow(&all, &v, &new(&["a"]), &mut Hundreds(Some(other))).unwrap_err();
    assert_eq!(error.state(), SqlState::DEPENDENT_OBJECTS);
}
