//! Every function, in orders of its own, with DISTINCT and FILTER, against its definition.

use super::*;
use crate::ordered::history::{History, Row, schema, text};
use crate::ordered::partitions::record_batch;
use arrow::datatypes::{Field, Schema};
use tidemark_common::random::Random;
use tidemark_plan::SortKey;

/// Rows as they are ordered by these columns, then by all.
fn ordered(rows: &[Row], call: &CollectCall) -> Vec<Row> {
    let mut rows = rows.to_vec();
    let place = |value: Option<i64>, key: &SortKey| {
        let value_key = value.map_or(0, |v| if key.descending { -v } else { v });
        (value.is_none() != key.nulls_first, value_key)
    };
    rows.sort_by_key(|row| {
        let keys: Vec<_> = call.order.iter().map(|k| place(row[k.column], k)).collect();
        (keys, row.map(|c| (c.is_none(), c)))
    });
    rows
}

fn defined(call: &CollectCall, rows: &[Row]) -> Option<String> {
    // The filter is `x = 2`, which is what the test's last column says.
    let mut values: Vec<Option<i64>> = ordered(rows, call)
        .iter()
        .filter(|row| call.filter.is_none() || row[2] == Some(2))
        .map(|row| call.arg.map_or(Some(0), |arg| row[arg]))
        .collect();
    if !matches!(
        call.function,
        CollectFunction::Array | CollectFunction::First | CollectFunction::Last
    ) {
        values.retain(Option::is_some);
    }
    if call.distinct {
        values.dedup();
    }
    let show = |v: Option<i64>| v.map_or("-".to_string(), |v| v.to_string());
    let number = |v: f64| {
        if v.fract() == 0.0 {
            format!("{v:.1}")
        } else {
            format!("{v}")
        }
    };
    match &call.function {
        CollectFunction::Array if values.is_empty() => None,
        CollectFunction::Array => {
            let values = values
                .iter()
                .map(|v| v.map_or("-".to_string(), |v| v.to_string()));
            Some(format!("[{}]", values.collect::<Vec<_>>().join(", ")))
        }
        CollectFunction::First => values.first().map(|v| show(*v)),
        CollectFunction::Last => values.last().map(|v| show(*v)),
        CollectFunction::Mode => {
            let count = |v: &Option<i64>| values.iter().filter(|w| *w == v).count();
            let most = values.iter().map(count).max()?;
            values.iter().find(|v| count(v) == most).map(|v| show(*v))
        }
        CollectFunction::PercentileDisc(bits) => {
            let place = (f64::from_bits(*bits) * values.len() as f64).ceil() as usize;
            values.get(place.saturating_sub(1)).map(|v| show(*v))
        }
        CollectFunction::PercentileCont(bits) => {
            let at = f64::from_bits(*bits) * (values.len().checked_sub(1)? as f64);
            let value = |at: f64| values[at as usize].map_or(0.0, |v| v as f64);
            let (low, high) = (value(at.floor()), value(at.ceil()));
            Some(number(low + (high - low) * at.fract()))
        }
        CollectFunction::PercentilesDisc(_) | CollectFunction::PercentilesCont(_)
            if values.is_empty() =>
        {
            None
        }
        CollectFunction::PercentilesDisc(parts) => {
            let value = |bits: u64| {
                let place = (f64::from_bits(bits) * values.len() as f64).ceil() as usize;
                show(values[place.saturating_sub(1)])
            };
            let values = parts.iter().map(|p| p.map_or("-".to_string(), value));
            Some(format!("[{}]", values.collect::<Vec<_>>().join(", ")))
        }
        CollectFunction::PercentilesCont(parts) => {
            let value = |bits: u64| {
                let at = f64::from_bits(bits) * (values.len() - 1) as f64;
                let value = |at: f64| values[at as usize].map_or(0.0, |v| v as f64);
                let (low, high) = (value(at.floor()), value(at.ceil()));
                number(low + (high - low) * at.fract())
            };
            let values = parts.iter().map(|p| p.map_or("-".to_string(), value));
            Some(format!("[{}]", values.collect::<Vec<_>>().join(", ")))
        }
        CollectFunction::Aggregate(AggregateFunction::CovarPop) => {
            let passes = |row: &&Row| call.filter.is_none() || row[2] == Some(2);
            let pairs = rows.iter().filter(passes).filter_map(|row| {
                let (y, x) = (row[call.arg?]?, row[call.second?]?);
                Some((y as f64, x as f64))
            });
            let pairs: Vec<(f64, f64)> = pairs.collect();
            let sum = |of: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>();
            let n = pairs.len() as f64;
            let numerator = n * sum(&|p| p.0 * p.1) - sum(&|p| p.0) * sum(&|p| p.1);
            (n > 0.0).then(|| number(numerator / (n * n)))
        }
        CollectFunction::Aggregate(AggregateFunction::Count) => Some(values.len().to_string()),
        CollectFunction::Aggregate(_) if values.is_empty() => None,
        CollectFunction::Aggregate(_) => Some(values.iter().flatten().sum::<i64>().to_string()),
    }
}

fn random_call(random: &mut Random) -> CollectCall {
    let part = random.below(5) as f64 / 4.0;
    let parts = || vec![Some(part.to_bits()), None, Some(0.5f64.to_bits())];
    let function = match random.below(11) {
        0 | 1 => CollectFunction::Array,
        2 => CollectFunction::First,
        3 => CollectFunction::Last,
        4 => CollectFunction::Mode,
        5 => CollectFunction::PercentileDisc(part.to_bits()),
        6 => CollectFunction::PercentileCont(part.to_bits()),
        7 => CollectFunction::PercentilesDisc(parts()),
        8 => CollectFunction::PercentilesCont(parts()),
        9 => CollectFunction::Aggregate(AggregateFunction::CovarPop),
        _ => CollectFunction::Aggregate(
            *random.pick(&[AggregateFunction::Count, AggregateFunction::Sum]),
        ),
    };
    let pairs = function == CollectFunction::Aggregate(AggregateFunction::CovarPop);
    let distinct = random.one_in(3) && !matches!(function, CollectFunction::Mode) && !pairs;
    // What is collected once each, and values in order, are ordered by themselves.
    let by_value = distinct
        || matches!(
            function,
            CollectFunction::Mode
                | CollectFunction::PercentileDisc(_)
                | CollectFunction::PercentileCont(_)
                | CollectFunction::PercentilesDisc(_)
                | CollectFunction::PercentilesCont(_)
        );
    let arg = 1 + random.below(2);
    let key = |column| SortKey {
        column,
        descending: column == 1 && arg == 2,
        nulls_first: column == 2,
    };
    let output = match function {
        CollectFunction::Array | CollectFunction::PercentilesDisc(_) => {
            DataType::new_list(DataType::Int64, true)
        }
        CollectFunction::PercentilesCont(_) => DataType::new_list(DataType::Float64, true),
        CollectFunction::PercentileCont(_) => DataType::Float64,
        _ if pairs => DataType::Float64,
        _ => DataType::Int64,
    };
    CollectCall {
        function,
        arg: Some(arg),
        second: pairs.then_some(3 - arg),
        order: vec![key(if by_value { arg } else { 1 + random.below(2) })],
        distinct,
        filter: random.one_in(4).then_some(3),
        output,
    }
}

#[test]
fn every_function_is_what_its_definition_says() {
    for seed in 0..400 {
        let mut random = Random(seed);
        let calls: Vec<CollectCall> = (0..1 + random.below(4))
            .map(|_| random_call(&mut random))
            .collect();
        let result = |(i, call): (usize, &CollectCall)| {
            Field::new(format!("r{i}"), call.output.clone(), true)
        };
        let group = Field::new("p", DataType::Int64, true);
        let results = calls.iter().enumerate().map(result);
        let output = Arc::new(Schema::new(
            [group].into_iter().chain(results).collect::<Vec<_>>(),
        ));
        History {
            seed,
            append_only: seed % 3 == 0,
            durable: true,
            operator: &|| {
                Box::new(Filtered(Collect::new(
                    &filtered(),
                    &output,
                    &[0],
                    &calls,
                    1,
                )))
            },
            expected: &|rows| {
                let mut groups = std::collections::BTreeMap::<_, Vec<Row>>::new();
                rows.iter()
                    .for_each(|row| groups.entry(row[0]).or_default().push(*row));
                let line = |(group, rows): (&Option<i64>, &Vec<Row>)| {
                    let results = calls.iter().map(|c| defined(c, rows).unwrap_or("-".into()));
                    let columns = std::iter::once(text(&[*group])).chain(results);
                    columns.collect::<Vec<_>>().join(" ")
                };
                groups.iter().map(line).collect()
            },
        }
        .check();
    }
}

/// The columns of a row and whether its last is 2.
fn filtered() -> SchemaRef {
    let fields = schema(3);
    let fields = fields.fields().iter().map(|f| f.as_ref().clone());
    let filter = Field::new("two", DataType::Boolean, true);
    Arc::new(Schema::new(fields.chain([filter]).collect::<Vec<_>>()))
}

struct Filtered(Collect);

impl Operator for Filtered {
    fn on_changes(&mut self, port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()> {
        let values = batch
            .column(2)
            .as_primitive::<arrow::datatypes::Int64Type>()
            .clone();
        let two: arrow::array::BooleanArray = values.iter().map(|v| v.map(|v| v == 2)).collect();
        let (rows, weights) = batch.into_parts();
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(two));
        let rows = record_batch(&filtered(), columns, rows.num_rows());
        self.0
            .on_changes(port, ChangeBatch::with_weights(rows, weights), out)
    }

    fn on_barrier(&mut self, barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        self.0.on_barrier(barrier, out)
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        self.0.tables()
    }
}
