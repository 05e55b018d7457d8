//! Round trips: of every kind of expression, of trees far deeper than a thread's stack allows to
//! walk, and of relations that this build cannot read.

use super::*;
use crate::{Fragment, Output};
use arrow_schema::{Field, Schema};

const DEPTH: usize = 20_000;

/// Runs on a stack that deep trees may be compared and dropped on.
fn with_stack(f: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(1 << 30).spawn(f);
    thread.unwrap().join().unwrap();
}

fn round_trip<T: Serialize + DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

fn column(i: usize) -> Box<Expr> {
    Box::new(Expr::Column(i))
}

fn plus(left: Expr, right: Expr) -> Expr {
    Expr::Binary {
        op: BinaryOp::Plus,
        left: Box::new(left),
        right: Box::new(right),
    }
}

#[test]
fn every_kind_of_expression_survives_the_round_trip() {
    let literals = [
        Literal::Null(DataType::Int64),
        Literal::Float32(0.1),
        Literal::Float64(0.1 + 0.2),
        Literal::Float64(f64::NEG_INFINITY),
        Literal::Float64(-0.0),
        Literal::Float64(f64::MIN_POSITIVE / 3.0),
        Literal::Float64(123456789.123456789e200),
        Literal::Decimal128("-12345678901234567890123456789012345678".into(), 38, 10),
        Literal::Utf8("a \"quoted\" \u{0} text".into()),
        Literal::TimestampMicros(i64::MIN, Some("UTC".into())),
    ];
    let case = |operand: bool, otherwise: bool| Expr::Case {
        operand: operand.then(|| column(1)),
        when_then: vec![
            (Expr::Column(2), Expr::Column(3)),
            (Expr::Column(4), Expr::Column(5)),
        ],
        otherwise: otherwise.then(|| column(6)),
    };
    let mut args: Vec<Expr> = literals.into_iter().map(Expr::Literal).collect();
    args.extend([
        plus(Expr::Column(1), Expr::Column(2)),
        Expr::Not(column(1)),
        Expr::Negative(column(1)),
        Expr::IsNull(column(1)),
        Expr::IsNotNull(column(1)),
        Expr::IsTrue(column(1)),
        Expr::IsFalse(column(1)),
        Expr::Like {
            negated: true,
            case_insensitive: false,
            expr: column(1),
            pattern: column(2),
        },
        Expr::InList {
            negated: true,
            expr: column(1),
            list: vec![Expr::Column(2), Expr::Column(3)],
        },
        case(false, false),
        case(true, false),
        case(false, true),
        case(true, true),
        Expr::Cast {
            expr: column(1),
            to: DataType::Decimal128(10, 2),
            safe: true,
        },
    ]);
    let all = Expr::Call {
        function: "f".into(),
        args,
    };
    assert_eq!(round_trip(&all), all);
    let nan = round_trip(&Expr::Literal(Literal::Float64(f64::NAN)));
    assert!(matches!(nan, Expr::Literal(Literal::Float64(f)) if f.is_nan()));
}

#[test]
fn depth_is_no_limit() {
    with_stack(|| {
        let mut deep = Expr::Column(0);
        for i in 0..DEPTH {
            deep = match i % 3 {
                0 => plus(deep, Expr::Column(i)),
                1 => plus(Expr::Column(i), deep),
                _ => Expr::Not(Box::new(deep)),
            };
        }
        assert!(round_trip(&deep) == deep);
    });
}

fn relation(job: Option<JobPlan>) -> Relation {
    Relation {
        id: RelationId(7),
        schema_name: "public".into(),
        name: "v".into(),
        kind: RelationKind::MaterializedView,
        columns: vec![Column {
            name: "c".into(),
            data_type: DataType::Int64,
            nullable: true,
            default: None,
            sql_type: String::new(),
        }],
        key: vec![0],
        key_declared: false,
        append_only: false,
        watermark: None,
        connector: None,
        logs_rows: Some(Epoch(4)),
        generated: Vec::new(),
        conflict: Conflict::Overwrite,
        on_error: OnError::Log,
        snapshot: true,
        definition: "CREATE MATERIALIZED VIEW v AS SELECT 1".into(),
        query: "SELECT 1".into(),
        named: vec![Named {
            schema: None,
            name: "t".into(),
            relation: RelationId(3),
        }],
        depends_on: vec![RelationId(3)],
        owner: "root".into(),
        comment: Some("text".into()),
        job,
        created_at: Some(Epoch(5)),
        altered: Altered {
            times: 3,
            dropped: [1].into(),
            seen: [(RelationId(3), 1)].into(),
            known_as: [(RelationId(3), vec![("c".into(), 0)])].into(),
        },
        unreadable: None,
    }
}

fn job(depth: usize) -> JobPlan {
    let node = |op, inputs| Node {
        op,
        inputs,
        schema: Arc::new(Schema::new(vec![Field::new("c", DataType::Int64, true)])),
        properties: Properties::default(),
    };
    let mut root = node(Op::TableRead, Vec::new());
    for i in 0..depth {
        root = match i % 2 {
            0 => node(Op::Union, vec![root, node(Op::TableRead, Vec::new())]),
            _ => node(
                Op::Filter {
                    predicate: Expr::Column(0),
                },
                vec![root],
            ),
        };
    }
    JobPlan {
        relation: RelationId(7),
        fragments: vec![Fragment {
            id: 0,
            root,
            output: Output::Relation,
        }],
        tables: 1,
        watermarks: Vec::new(),
    }
}

#[test]
fn a_catalog_with_deep_jobs_survives_the_round_trip() {
    with_stack(|| {
        let stopped = Stopped {
            epoch: Epoch(4),
            reason: "why".into(),
            since: 5,
            held: true,
        };
        let ann = crate::Role {
            id: 3,
            ..crate::Role::new("ann")
        };
        let default_grant = crate::DefaultGrant {
            role: "ann".into(),
            schema: Some("s".into()),
            of: crate::NewObject::Relations,
            privilege: crate::Privilege::Select,
            grantee: None,
            with_option: false,
        };
        let secret = crate::Secret {
            name: crate::SecretName {
                schema_name: "s".into(),
                name: "x".into(),
            },
            owner: "ann".into(),
            sealed: "v1:".into(),
        };
        let catalog = Catalog {
            relations: BTreeMap::from([(RelationId(7), Arc::new(relation(Some(job(DEPTH)))))]),
            schemas: vec!["s".into()],
            replacing: BTreeMap::from([(RelationId(3), RelationId(2))]),
            beside: BTreeMap::from([(RelationId(5), RelationId(4))]),
            stopped: BTreeMap::from([(RelationId(7), stopped)]),
            schema_owners: [("s".to_string(), "ann".to_string())].into(),
            roles: [("ann".to_string(), ann)].into(),
            last_role_id: 4,
            grants: crate::Grants::default(),
            default_grants: [default_grant].into(),
            secrets: vec![secret],
            next_id: 8,
        };
        assert!(round_trip(&catalog) == catalog);
    });
}

#[test]
fn a_relation_that_cannot_be_read_spoils_no_other_and_goes_back_as_it_came() {
    let mut catalog = Catalog::default();
    for id in [6, 7] {
        let mut one = relation(Some(job(3)));
        (one.id, one.name) = (RelationId(id), format!("v{id}"));
        catalog.relations.insert(one.id, Arc::new(one));
    }
    let text = serde_json::to_string(&catalog).unwrap();
    for (from, to, reason) in [
        ("Union", "Reunion", "unknown variant"),
        ("\"version\":2", "\"version\":3", "version 3"),
        ("fragments", "frag\\\"ments", "expected"),
    ] {
        let at = text.rfind(from).unwrap();
        let damaged = format!("{}{to}{}", &text[..at], &text[at + from.len()..]);
        let read: Catalog = serde_json::from_str(&damaged).unwrap();
        assert_eq!(
            read.relations[&RelationId(6)],
            catalog.relations[&RelationId(6)]
        );
        let aside = &read.relations[&RelationId(7)];
        let unreadable = aside.unreadable.as_ref().unwrap();
        assert!(unreadable.reason.contains(reason), "{}", unreadable.reason);
        assert_eq!(aside.name, "v7");
        assert_eq!(aside.depends_on, [RelationId(3)]);
        if reason != "expected" {
            assert_eq!(aside.definition, "CREATE MATERIALIZED VIEW v AS SELECT 1");
            assert_eq!(aside.columns.len(), 1);
        }
        assert_eq!(serde_json::to_string(&read).unwrap(), damaged);
    }
}

#[test]
fn a_broken_tree_is_an_error() {
    for text in ["[]", "[\"Not\"]", "[{\"Column\":1},{\"Column\":2}]"] {
        assert!(serde_json::from_str::<Expr>(text).is_err(), "{text}");
    }
    let huge = format!(
        "[{{\"InList\":{{\"negated\":false,\"length\":{}}}}}]",
        usize::MAX
    );
    assert!(serde_json::from_str::<Expr>(&huge).is_err());
}
