//! Every function over frames of all kinds, against its definition, row by row.

use super::*;
use crate::ordered::history::{History, Row, schema, text};
use arrow::datatypes::{DataType, Field, Schema};
use std::sync::Arc;
use tidemark_common::random::Random;
use tidemark_plan::{
    AggregateFunction, Excluded, Frame, FrameBound, FrameUnits, Ranking, WindowFunction,
};

fn call(function: WindowFunction, args: &[usize], frame: Frame) -> WindowCall {
    let output = match function {
        WindowFunction::Array => DataType::new_list(DataType::Int64, true),
        _ => DataType::Int64,
    };
    WindowCall {
        function,
        args: args.to_vec(),
        filter: None,
        frame,
        output,
    }
}

/// The columns of rows with these calls behind them.
fn output(calls: &[WindowCall]) -> SchemaRef {
    let fields = schema(3 + calls.len());
    let fields = fields.fields().iter().enumerate();
    let fields = fields.map(|(i, field)| match i.checked_sub(3) {
        Some(call) => Field::new(field.name(), calls[call].output.clone(), true),
        None => field.as_ref().clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The rows of a partition in order, and the frame of one of them, by definition.
fn frame_of<'a>(rows: &'a [Row], at: usize, frame: Frame) -> Vec<&'a Row> {
    let groups: Vec<usize> = rows
        .iter()
        .scan((0, rows[0][1]), |(group, key), row| {
            *group += usize::from(*key != row[1]);
            *key = row[1];
            Some(*group)
        })
        .collect();
    let distance = |i: usize| match frame.units {
        FrameUnits::Rows => i as i64 - at as i64,
        _ => groups[i] as i64 - groups[at] as i64,
    };
    let place = |key: Option<i64>| (key.is_none(), key);
    let within = |i: &usize| {
        let key = place(rows[*i][1]);
        let starts = match frame.start {
            FrameBound::Unbounded => true,
            FrameBound::Offset(by) => distance(*i) >= by,
            FrameBound::Value(column) => key >= place(rows[at][column]),
        };
        let ends = match frame.end {
            FrameBound::Unbounded => true,
            FrameBound::Offset(by) => distance(*i) <= by,
            FrameBound::Value(column) => key <= place(rows[at][column]),
        };
        let excluded = match frame.excluded {
            Excluded::Nothing => false,
            Excluded::CurrentRow => *i == at,
            Excluded::Group => groups[*i] == groups[at],
            Excluded::Ties => groups[*i] == groups[at] && *i != at,
        };
        starts && ends && !excluded
    };
    (0..rows.len()).filter(within).map(|i| &rows[i]).collect()
}

/// A call's result, as text.
fn defined(call: &WindowCall, rows: &[Row], at: usize) -> String {
    if call.function != WindowFunction::Array {
        return text(&[number(call, rows, at)]);
    }
    let frame = frame_of(rows, at, call.frame);
    match frame.is_empty() {
        true => "-".into(),
        false => {
            let values = frame.iter().map(|row| text(&[row[call.args[0]]]));
            format!("[{}]", values.collect::<Vec<_>>().join(", "))
        }
    }
}

fn number(call: &WindowCall, rows: &[Row], at: usize) -> Option<i64> {
    let key = rows[at][1];
    let column = |row: &Row| row[call.args[0]];
    let frame = || frame_of(rows, at, call.frame);
    let values = || -> Vec<i64> { frame().into_iter().filter_map(|row| row[2]).collect() };
    let ahead = rows.iter().take_while(|row| row[1] != key).count();
    match &call.function {
        WindowFunction::Ranking(Ranking::RowNumber) => Some(at as i64 + 1),
        WindowFunction::Ranking(Ranking::Rank) => Some(ahead as i64 + 1),
        WindowFunction::Ranking(Ranking::DenseRank) => {
            let mut keys: Vec<_> = rows[..ahead].iter().map(|row| row[1]).collect();
            keys.dedup();
            Some(keys.len() as i64 + 1)
        }
        // As whole numbers, which the results are cast to.
        WindowFunction::PercentRank => Some((ahead as i64) / (rows.len() as i64 - 1).max(1)),
        WindowFunction::CumeDist => {
            let peers = rows.iter().filter(|row| row[1] == key).count();
            Some((ahead + peers) as i64 / rows.len() as i64)
        }
        WindowFunction::Ntile(parts) => part(rows.len(), *parts, at),
        WindowFunction::NtileBy => {
            let first = rows.iter().position(|row| column(row).is_some())?;
            part(rows.len(), column(&rows[first])?, at.checked_sub(first)?)
        }
        WindowFunction::LagBy | WindowFunction::LeadBy => {
            let is_back = call.function == WindowFunction::LagBy;
            let by = rows[at][call.args[1]]?;
            let there = at as i64 + if is_back { -by } else { by };
            let there = usize::try_from(there).ok()?;
            rows.get(there).and_then(column)
        }
        WindowFunction::NthValueBy => {
            let nth = usize::try_from(rows[at][call.args[1]]?).ok()?;
            frame().get(nth.checked_sub(1)?).and_then(|row| column(row))
        }
        WindowFunction::Shifted(by) => {
            let there = usize::try_from(at as i64 + by).ok();
            match there.and_then(|there| rows.get(there)) {
                Some(row) => column(row),
                None => call.args.get(1).and_then(|default| rows[at][*default]),
            }
        }
        WindowFunction::FirstValue => frame().first().and_then(|row| column(row)),
        WindowFunction::LastValue => frame().last().and_then(|row| column(row)),
        WindowFunction::NthValue(n) => frame().get(*n as usize - 1).and_then(|row| column(row)),
        WindowFunction::Aggregate(AggregateFunction::Count) => Some(match call.args.is_empty() {
            true => frame().len() as i64,
            false => values().len() as i64,
        }),
        WindowFunction::Aggregate(AggregateFunction::Sum) => {
            (!values().is_empty()).then(|| values().iter().sum())
        }
        WindowFunction::Aggregate(AggregateFunction::Min) => values().into_iter().min(),
        WindowFunction::Aggregate(AggregateFunction::Max) => values().into_iter().max(),
        other => panic!("{other:?} has no definition"),
    }
}

/// Which of so many parts a row is in.
fn part(rows: usize, parts: i64, at: usize) -> Option<i64> {
    let mut sizes = vec![0; parts as usize];
    (0..rows).for_each(|i| sizes[i % parts as usize] += 1);
    let mut end = 0;
    let part = sizes.iter().position(|size| {
        end += size;
        at < end
    });
    part.map(|part| part as i64 + 1)
}

fn expected(calls: &[WindowCall], partitioned: bool, rows: &[Row]) -> Vec<String> {
    let mut partitions = std::collections::BTreeMap::<_, Vec<Row>>::new();
    for row in rows {
        partitions
            .entry(row[0].filter(|_| partitioned))
            .or_default()
            .push(*row);
    }
    let mut found = Vec::new();
    for rows in partitions.values_mut() {
        rows.sort_by_key(|row| [row[1], row[0], row[2]].map(|c| (c.is_none(), c)));
        for at in 0..rows.len() {
            let results = calls.iter().map(|call| defined(call, rows, at));
            let all: Vec<String> = std::iter::once(text(&rows[at])).chain(results).collect();
            found.push(all.join(" "));
        }
    }
    found
}

fn frames(random: &mut Random) -> Frame {
    let units = *random.pick(&[FrameUnits::Rows, FrameUnits::Groups, FrameUnits::Range]);
    let mut offset = || match units {
        FrameUnits::Range => 0,
        _ => random.below(5) as i64 - 2,
    };
    let (a, b) = (offset(), offset());
    let bound = |random: &mut Random, offset| match random.below(3) {
        0 => FrameBound::Unbounded,
        1 if units == FrameUnits::Range => FrameBound::Value(2),
        _ => FrameBound::Offset(offset),
    };
    Frame {
        units,
        start: bound(random, a.min(b)),
        end: bound(random, a.max(b)),
        excluded: *random.pick(&[
            Excluded::Nothing,
            Excluded::CurrentRow,
            Excluded::Group,
            Excluded::Ties,
        ]),
        ahead_micros: None,
    }
}

fn functions(random: &mut Random) -> (WindowFunction, &'static [usize]) {
    use WindowFunction::*;
    let all: [(WindowFunction, &[usize]); 21] = [
        (Ranking(tidemark_plan::Ranking::RowNumber), &[]),
        (Ranking(tidemark_plan::Ranking::Rank), &[]),
        (Ranking(tidemark_plan::Ranking::DenseRank), &[]),
        (PercentRank, &[]),
        (CumeDist, &[]),
        (Ntile(3), &[]),
        (Shifted(-1), &[2]),
        (Shifted(2), &[2, 1]),
        (FirstValue, &[2]),
        (LastValue, &[2]),
        (NthValue(2), &[2]),
        (Aggregate(AggregateFunction::Count), &[]),
        (Aggregate(AggregateFunction::Count), &[2]),
        (Aggregate(AggregateFunction::Sum), &[2]),
        (Aggregate(AggregateFunction::Min), &[2]),
        (Aggregate(AggregateFunction::Max), &[2]),
        (Array, &[2]),
        (NtileBy, &[1]),
        (LagBy, &[2, 1]),
        (LeadBy, &[0, 2]),
        (NthValueBy, &[0, 2]),
    ];
    random.pick(&all).clone()
}

#[test]
fn every_function_is_what_its_definition_says() {
    for seed in 0..600 {
        let mut random = Random(seed);
        let partitioned = random.one_in(2);
        let calls: Vec<WindowCall> = (0..1 + random.below(3))
            .map(|_| {
                let (function, args) = functions(&mut random);
                call(function, args, frames(&mut random))
            })
            .collect();
        let order = [SortKey {
            column: 1,
            descending: false,
            nulls_first: false,
        }];
        let partition: &[usize] = if partitioned { &[0] } else { &[] };
        let output = output(&calls);
        History {
            seed,
            append_only: seed % 3 == 0,
            durable: true,
            operator: &|| {
                Box::new(Window::new(
                    &schema(3),
                    &output,
                    partition,
                    &order,
                    &calls,
                    1,
                ))
            },
            expected: &|rows| expected(&calls, partitioned, rows),
        }
        .check();
    }
}
