//! A view with a view over it and a sink of that one is replaced: wholly or not at all, whatever
//! fails and whenever the process dies.

use crate::coordinator::testing::{Bed, sink, source, table, view};
use crate::inputs::RequestId;
use crate::protocol::{Dependant, Event, Positions, Request};
use std::collections::{BTreeMap, BTreeSet};
use tidemark_common::{Error, RelationId, SqlState};
use tidemark_plan::Relation;

const T: RelationId = RelationId(1);
const V: RelationId = RelationId(2);
const W: RelationId = RelationId(3);
const OUT: RelationId = RelationId(4);
const NEW_V: RelationId = RelationId(12);
const NEW_W: RelationId = RelationId(13);

/// Table t, view v of it, view w of v, and a sink of w.
fn bed() -> Bed {
    let mut bed = Bed::new(2);
    let t = table(1, "t");
    let v = view(2, "v", &t);
    let w = view(3, "w", &v);
    for relation in [&t, &v, &w, &sink(4, "out", &w)] {
        bed.create(relation);
    }
    bed.write(T, 5).unwrap().unwrap();
    bed
}

fn replacing(new: Relation, dependants: &[(RelationId, RelationId)]) -> Request {
    let dependant = |number: RelationId| Dependant {
        number,
        planned: None,
        targets: Positions::new(),
        begins: Positions::new(),
    };
    let dependants = dependants
        .iter()
        .map(|(id, number)| (*id, dependant(*number)));
    Request::Create {
        relation: Box::new(new),
        start: Vec::new(),
        targets: Positions::new(),
        begins: Positions::new(),
        replaces: Some(V),
        dependants: dependants.collect(),
        rows: Vec::new(),
    }
}

fn replace(bed: &mut Bed) -> RequestId {
    let new = view(12, "v", &table(1, "t"));
    bed.request(replacing(new, &[(W, NEW_W), (OUT, OUT)]))
}

fn shown(bed: &Bed) -> BTreeSet<RelationId> {
    let script = bed.script.lock();
    script.shown.relations.keys().copied().collect()
}

fn taps(bed: &Bed, id: RelationId) -> Vec<RelationId> {
    let relation = bed.script.lock().shown.relations[&id].clone();
    let taps = relation.job.iter().flat_map(|j| j.taps());
    taps.map(|(id, _)| id).collect()
}

/// Whether there are the new ones; if not there are the old ones.
fn is_replaced(bed: &Bed) -> bool {
    let shown = shown(bed);
    let replaced = shown.contains(&NEW_V);
    let (all, read) = match replaced {
        true => ([T, OUT, NEW_V, NEW_W], NEW_W),
        false => ([T, V, W, OUT], W),
    };
    assert_eq!(shown, all.into());
    assert_eq!(taps(bed, OUT), [read]);
    replaced
}

/// Everything runs, and nothing is left of what came to nothing.
fn is_whole(bed: &Bed) -> bool {
    let replaced = is_replaced(bed);
    assert_eq!(bed.running(), shown(bed));
    let catalog = bed.coordinator.decisions.catalog.clone();
    assert_eq!(
        catalog.relations.keys().copied().collect::<BTreeSet<_>>(),
        shown(bed)
    );
    assert!(catalog.beside.is_empty() && bed.coordinator.halted.is_empty());
    replaced
}

#[test]
fn all_take_their_places_at_once() {
    let mut bed = bed();
    let asked = replace(&mut bed);
    bed.run();
    bed.answer(asked).unwrap().unwrap();
    assert!(is_whole(&bed));
    assert_eq!(taps(&bed, NEW_W), [NEW_V]);
    assert_eq!(taps(&bed, NEW_V), [T]);
    let started = bed.script.lock().started(OUT).unwrap();
    assert_eq!(started.told.keys().collect::<Vec<_>>(), [&NEW_W]);
    assert_eq!(started.formerly[&NEW_W].relation.id, W);
    bed.flush().unwrap().unwrap();
    assert!(is_whole(&bed.restart()));
}

#[test]
fn a_death_at_any_moment_leaves_all_or_nothing() {
    let mut seen = [0, 0];
    for steps in 0.. {
        let mut bed = bed();
        let asked = replace(&mut bed);
        let is_over = bed.step(steps);
        let answer = bed.answer(asked);
        let before = is_replaced(&bed);
        let mut bed = bed.restart();
        bed.run();
        let after = is_whole(&bed);
        assert_eq!(after, before, "after {steps} steps");
        seen[usize::from(after)] += 1;
        // The sink has told what w had: whatever it reads now, it goes on behind that.
        let started = bed.script.lock().started(OUT).unwrap();
        let read = if after { NEW_W } else { W };
        let resumed = !started.told.is_empty();
        assert!(
            !resumed || started.told.contains_key(&read),
            "after {steps} steps"
        );
        if let Some(answer) = answer {
            answer.unwrap();
            assert!(after);
        }
        bed.write(T, 3).unwrap().unwrap();
        bed.flush().unwrap().unwrap();
        if is_over {
            break;
        }
    }
    assert!(seen[0] > 20 && seen[1] > 0, "{seen:?}");
}

#[test]
fn a_cancel_at_any_moment_leaves_all_or_nothing() {
    for steps in 0.. {
        let mut bed = bed();
        let asked = replace(&mut bed);
        let is_over = bed.step(steps);
        bed.request(Request::Cancel {
            relation: NEW_V,
            error: Error::user(SqlState::QUERY_CANCELED, "canceled"),
        });
        bed.run();
        let replaced = is_whole(&bed);
        assert_eq!(
            bed.answer(asked).unwrap().is_ok(),
            replaced,
            "after {steps} steps"
        );
        assert!(bed.coordinator.successions.is_empty());
        bed.flush().unwrap().unwrap();
        assert_eq!(is_whole(&bed.restart()), replaced);
        if is_over {
            break;
        }
    }
}

#[test]
fn what_fails_on_the_way_leaves_the_old_ones() {
    for fails in [NEW_V, NEW_W] {
        let mut bed = bed();
        let error = Error::user(SqlState::INVALID_PARAMETER, "no");
        bed.script.lock().fails.insert(fails, error);
        let asked = replace(&mut bed);
        bed.run();
        let error = bed.answer(asked).unwrap().unwrap_err();
        assert_eq!(error.message().contains("\"w\""), fails == NEW_W, "{error}");
        assert!(!is_whole(&bed));
    }
    // The first one is there already, and beside.
    for steps in 0.. {
        let mut bed = bed();
        let asked = replace(&mut bed);
        let is_over = bed.step(steps);
        let error = Error::user(SqlState::INVALID_PARAMETER, "no");
        let relation = NEW_V;
        bed.event(Event::Failed { relation, error });
        if bed.answer(asked).unwrap().is_ok() {
            assert!(is_replaced(&bed));
        } else {
            assert!(!is_whole(&bed));
        }
        if is_over {
            break;
        }
    }
}

#[test]
fn a_sink_whose_past_cannot_be_kept_stays_where_it_is() {
    let mut bed = bed();
    bed.script.lock().answer_error = Some(Error::internal("no"));
    let asked = replace(&mut bed);
    bed.run();
    // The last checkpoint may have it.
    let answer = bed.answer(asked).unwrap();
    assert_eq!(answer.is_ok(), is_replaced(&bed));
}

#[test]
fn nobody_comes_in_between() {
    let mut bed = bed();
    bed.script.lock().stores = Some(Vec::new());
    let asked = replace(&mut bed);
    bed.run();
    assert!(bed.answer(asked).is_none() && !is_replaced(&bed));
    let refused = |bed: &mut Bed, request| {
        let asked = bed.request(request);
        let answer = bed.answer(asked);
        answer.expect("it is answered at once").unwrap_err().state()
    };
    let shown = bed.script.lock().shown.clone();
    let over = |id: u32, on: RelationId| Request::Create {
        relation: Box::new(view(id, "x", &shown.relations[&on])),
        start: Vec::new(),
        targets: Positions::new(),
        begins: Positions::new(),
        replaces: None,
        dependants: BTreeMap::new(),
        rows: Vec::new(),
    };
    for on in [V, W] {
        assert_eq!(refused(&mut bed, over(20, on)), SqlState("55006"));
    }
    let rename = crate::CatalogChange::Rename {
        relation: W,
        name: "z".into(),
    };
    let rename = Request::Changes {
        changes: vec![rename],
        cascade: false,
    };
    assert_eq!(refused(&mut bed, rename), SqlState("55006"));
    let again = replacing(
        view(22, "v", &table(1, "t")),
        &[(W, RelationId(23)), (OUT, OUT)],
    );
    assert_eq!(refused(&mut bed, again), SqlState("55006"));
    // But what is to be replaced may go, and then nothing is replaced.
    let drop = Request::Changes {
        changes: vec![crate::CatalogChange::Drop { relations: vec![W] }],
        cascade: true,
    };
    let dropped = bed.request(drop);
    let late = bed.script.lock().stores.take();
    late.into_iter()
        .flatten()
        .for_each(|event| bed.event(event));
    bed.answer(dropped).unwrap().unwrap();
    assert!(bed.answer(asked).unwrap().is_err());
    assert_eq!(self::shown(&bed), [T, V].into());
    assert_eq!(bed.running(), [T, V].into());
}

#[test]
fn what_depends_on_it_by_now_was_not_looked_at() {
    let mut bed = bed();
    let new = view(12, "v", &table(1, "t"));
    let asked = bed.request(replacing(new, &[(OUT, OUT)]));
    bed.run();
    let error = bed.answer(asked).unwrap().unwrap_err();
    assert_eq!(error.state(), SqlState("40001"));
    assert!(!is_whole(&bed));
}

#[test]
fn a_source_that_only_the_new_one_reads_is_let_go() {
    let mut bed = bed();
    let s = source(5, "s");
    bed.create_at(&s, vec![crate::coordinator::testing::at(0)])
        .unwrap()
        .unwrap();
    let error = Error::user(SqlState::INVALID_PARAMETER, "no");
    bed.script.lock().fails.insert(NEW_W, error);
    let asked = bed.request(replacing(view(12, "v", &s), &[(W, NEW_W), (OUT, OUT)]));
    bed.run();
    assert!(bed.answer(asked).unwrap().is_err());
    assert_eq!(bed.running(), [T, V, W, OUT].into());
}
