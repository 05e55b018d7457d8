//! Which changes are accepted, and what the log makes of replacements, also when parts of it are
//! missing.

use super::{Accepted, Pending, Proposed};
use crate::{CatalogChange, Decisions, Entry};
use std::collections::BTreeMap;
use tidemark_common::{Epoch, RelationId};
use tidemark_plan::{Catalog, Conflict, OnError, Relation, RelationKind};

fn relation(id: u32, name: &str, kind: RelationKind, depends_on: &[u32]) -> Relation {
    Relation {
        id: RelationId(id),
        schema_name: "public".into(),
        name: name.into(),
        kind,
        columns: Vec::new(),
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
        depends_on: depends_on.iter().copied().map(RelationId).collect(),
        owner: String::new(),
        comment: None,
        job: None,
        created_at: None,
        altered: Default::default(),
        unreadable: None,
    }
}

fn create(relation: Relation) -> CatalogChange {
    CatalogChange::Create {
        relation: Box::new(relation),
        start: Vec::new(),
        begins: BTreeMap::new(),
    }
}

fn replace(old: u32, new: u32) -> CatalogChange {
    CatalogChange::Replace {
        old: RelationId(old),
        new: RelationId(new),
    }
}

fn checkpoint(epoch: u64) -> Entry {
    Entry::Checkpoint {
        epoch: Epoch(epoch),
        manifest: String::new(),
        contains: 0,
    }
}

/// View 1, which the plain view 2 names, and its successor 3 of epoch 7.
fn replacing() -> Decisions {
    let mut decisions = Decisions::default();
    let mut old = relation(1, "v", RelationKind::MaterializedView, &[]);
    old.comment = Some("kept".into());
    let view = relation(2, "w", RelationKind::View, &[1]);
    let mut new = relation(3, "v", RelationKind::MaterializedView, &[]);
    new.created_at = Some(Epoch(7));
    decisions.apply(1, &Entry::Changes(vec![create(old), create(view)]));
    decisions.apply(2, &Entry::Changes(vec![create(new), replace(1, 3)]));
    decisions
}

fn ids(decisions: &Decisions) -> Vec<u32> {
    decisions.catalog.relations.keys().map(|id| id.0).collect()
}

#[test]
fn the_commit_that_contains_the_new_one_takes_the_old_one_away() {
    let mut decisions = replacing();
    decisions.apply(3, &checkpoint(6));
    assert_eq!(ids(&decisions), [1, 2, 3]);
    assert_eq!(
        ids_of(&decisions.catalog_at(Epoch(6))),
        [1, 2],
        "and nothing is pending there"
    );
    decisions.apply(4, &checkpoint(8));
    assert_eq!(ids(&decisions), [2, 3]);
    assert!(decisions.catalog.replacing.is_empty());
    let new = &decisions.catalog.relations[&RelationId(3)];
    assert_eq!(new.comment.as_deref(), Some("kept"));
    let view = &decisions.catalog.relations[&RelationId(2)];
    assert_eq!(view.depends_on, [RelationId(3)]);
}

fn ids_of(catalog: &Catalog) -> Vec<u32> {
    assert!(catalog.replacing.is_empty());
    catalog.relations.keys().map(|id| id.0).collect()
}

#[test]
fn a_new_one_that_is_undone_leaves_the_old_one_whatever_comes_after() {
    let mut decisions = replacing();
    let relations = vec![RelationId(3)];
    decisions.apply(3, &Entry::Drop { relations });
    decisions.apply(4, &checkpoint(8));
    assert_eq!(ids(&decisions), [1, 2]);
}

#[test]
fn what_has_no_job_is_replaced_at_once() {
    let mut decisions = Decisions::default();
    let (old, new) = (
        relation(1, "v", RelationKind::View, &[]),
        relation(2, "v", RelationKind::View, &[]),
    );
    decisions.apply(1, &Entry::Changes(vec![create(old)]));
    decisions.apply(2, &Entry::Changes(vec![create(new), replace(1, 2)]));
    assert_eq!(ids(&decisions), [2]);
}

const TABLE: RelationKind = RelationKind::Table;
const VIEW: RelationKind = RelationKind::View;
const KEPT: RelationKind = RelationKind::MaterializedView;

fn rename(id: u32, name: &str) -> CatalogChange {
    CatalogChange::Rename {
        relation: RelationId(id),
        name: name.into(),
    }
}

fn drop_schema(name: &str) -> CatalogChange {
    CatalogChange::DropSchema { name: name.into() }
}

fn drop_all(ids: &[u32]) -> CatalogChange {
    CatalogChange::Drop {
        relations: ids.iter().copied().map(RelationId).collect(),
    }
}

fn set_schema(id: u32, schema_name: &str) -> CatalogChange {
    CatalogChange::SetSchema {
        relation: RelationId(id),
        schema_name: schema_name.into(),
    }
}

fn in_schema(mut relation: Relation, schema_name: &str) -> Relation {
    relation.schema_name = schema_name.into();
    relation
}

/// Table 1 `t`, read by the view 2 `v`, whose job 3 `m` reads; `s.x` is 4; `slow` 8 and `s.new` 9
/// are being created, and 10, which takes the place of the table 5 `old`.
fn catalog() -> Catalog {
    let mut decisions = Decisions::default();
    let create_schema = CatalogChange::CreateSchema {
        name: "s".into(),
        owner: None,
    };
    let changes = vec![
        create_schema,
        create(relation(1, "t", TABLE, &[])),
        create(relation(2, "v", VIEW, &[1])),
        create(relation(3, "m", KEPT, &[1, 2])),
        create(in_schema(relation(4, "x", TABLE, &[]), "s")),
        create(relation(5, "old", TABLE, &[])),
    ];
    decisions.apply(1, &Entry::Changes(changes));
    decisions.catalog
}

fn accepted(changes: Vec<CatalogChange>, cascade: bool) -> Result<Accepted, &'static str> {
    let catalog = catalog();
    let pending = |relation: Relation, replaces| (relation.id, Pending { relation, replaces });
    let proposed = Proposed {
        catalog: &catalog,
        creating: BTreeMap::from([
            pending(relation(8, "slow", KEPT, &[1]), None),
            pending(in_schema(relation(9, "new", KEPT, &[]), "s"), None),
            pending(relation(10, "old", TABLE, &[]), Some(RelationId(5))),
        ]),
        followers: Default::default(),
    };
    let accepted = proposed.accept(changes, cascade);
    accepted.map_err(|error| error.state().0)
}

#[test]
fn what_would_lead_to_an_invalid_catalog_is_refused() {
    let table = |name: &str| relation(20, name, TABLE, &[]);
    for (changes, state) in [
        (vec![create(table("t"))], "42P07"),
        (vec![create(table("slow"))], "42P07"),
        (vec![create(table("old"))], "42P07"),
        (vec![rename(3, "t")], "42P07"),
        (vec![rename(3, "slow")], "42P07"),
        (vec![rename(4, "new")], "42P07"),
        (vec![rename(4, "t"), set_schema(4, "public")], "42P07"),
        // A plain view names what it reads; what is being replaced keeps its name.
        (vec![rename(1, "u")], "2BP01"),
        (vec![set_schema(1, "s")], "2BP01"),
        (vec![rename(5, "u")], "55006"),
        (vec![create(relation(20, "n", VIEW, &[5]))], "55006"),
        (vec![create(relation(20, "n", VIEW, &[8]))], "42P01"),
        (vec![create(relation(20, "n", VIEW, &[19]))], "42P01"),
        (vec![rename(19, "u")], "42P01"),
        (vec![set_schema(3, "nowhere")], "3F000"),
        (vec![create(in_schema(table("n"), "nowhere"))], "3F000"),
        (
            vec![CatalogChange::CreateSchema {
                name: "s".into(),
                owner: None,
            }],
            "42P06",
        ),
        (vec![drop_schema("nowhere")], "3F000"),
        (vec![drop_schema("s")], "2BP01"),
        (vec![drop_all(&[4]), drop_schema("s")], "2BP01"),
        (vec![drop_all(&[1])], "2BP01"),
        // One that is refused takes the others along.
        (vec![rename(3, "fine"), rename(4, "new")], "42P07"),
        (
            vec![create(relation(20, "old", TABLE, &[])), replace(5, 20)],
            "55006",
        ),
        (
            vec![create(relation(20, "t", TABLE, &[])), replace(1, 20)],
            "2BP01",
        ),
        (
            vec![create(relation(20, "m", VIEW, &[])), replace(3, 20)],
            "42809",
        ),
        (
            vec![create(relation(20, "m", KEPT, &[3])), replace(3, 20)],
            "42P17",
        ),
    ] {
        let answer = accepted(changes.clone(), false);
        assert_eq!(answer.err(), Some(state), "{changes:?}");
    }
}

#[test]
fn names_may_change_places_in_one_step() {
    let swap = vec![rename(3, "old2"), rename(5, "m")];
    assert_eq!(accepted(swap, false).err(), Some("55006"));
    let swap = vec![set_schema(4, "public"), rename(4, "m"), rename(3, "x")];
    let accepted = accepted(swap.clone(), false).unwrap_or_else(|state| panic!("{state}"));
    assert_eq!(accepted.changes, swap);
}

#[test]
fn cascade_takes_what_there_is_when_it_is_logged() {
    let ids = |ids: &[RelationId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    let all = accepted(vec![drop_all(&[1])], true).unwrap_or_else(|state| panic!("{state}"));
    assert_eq!(
        (ids(&all.dropped), ids(&all.canceled)),
        (vec![1, 2, 3], vec![8])
    );
    let all = accepted(vec![drop_schema("s")], true).unwrap_or_else(|state| panic!("{state}"));
    assert_eq!((ids(&all.dropped), ids(&all.canceled)), (vec![4], vec![9]));
    // What is dropped is not replaced any more.
    let all = accepted(vec![drop_all(&[5])], false).unwrap_or_else(|state| panic!("{state}"));
    assert_eq!((ids(&all.dropped), ids(&all.canceled)), (vec![5], vec![10]));
}
