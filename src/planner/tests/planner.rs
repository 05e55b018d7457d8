//! Goldens: every file of `tests/golden` is a list of statements, each followed by `----` and what
//! comes of it, planned in order against one catalog. A CREATE gives its columns and its stream
//! plan, a bare query the plan of the materialized view that it would be, an error its code,
//! message and position. `zone NAME` is the time zone of what follows. `file PATH` stands for the
//! statement in a file of the workspace. `UPDATE=1 cargo test -p tidemark-planner` rewrites the
//! files.

use arrow_schema::{DataType, SchemaRef, TimeUnit};
use datafusion_common::{Result as DataFusionResult, ScalarValue, not_impl_err};
use datafusion_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use tidemark_common::{Error, RelationId};
use tidemark_plan::{Catalog, Op, Output, Relation};
use tidemark_planner::{Functions, Planner, StatementKind, parse};

/// A function that exists in `operator`: only its name and type matter here.
#[derive(Debug)]
struct StandIn {
    name: &'static str,
    signature: Signature,
    result: fn(&[DataType]) -> DataType,
}

impl PartialEq for StandIn {
    fn eq(&self, other: &StandIn) -> bool {
        self.name == other.name
    }
}
impl Eq for StandIn {}
impl std::hash::Hash for StandIn {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for StandIn {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, args: &[DataType]) -> DataFusionResult<DataType> {
        Ok((self.result)(args))
    }
    fn coerce_types(&self, args: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        Ok(args.to_vec())
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        // Planning reads quoted constants by this one.
        if self.name == "cast_as" {
            let null = ScalarValue::try_from(args.return_type())?;
            return Ok(ColumnarValue::Scalar(null));
        }
        not_impl_err!("{} is a stand-in", self.name)
    }
}

fn functions() -> Functions {
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
    let with_zone = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let moment = |second: DataType| {
        Signature::one_of(
            vec![
                TypeSignature::Exact(vec![timestamp.clone(), second.clone()]),
                TypeSignature::Exact(vec![with_zone.clone(), second]),
            ],
            Volatility::Immutable,
        )
    };
    let stand_in = |name, signature, result: fn(&[DataType]) -> DataType| {
        Arc::new(ScalarUDF::from(StandIn {
            name,
            signature,
            result,
        }))
    };
    let text = Signature::exact(
        vec![DataType::Utf8, DataType::Utf8, DataType::Int64],
        Volatility::Immutable,
    );
    let same: fn(&[DataType]) -> DataType = |types| types[0].clone();
    let numeric: fn(&[DataType]) -> DataType = |_| DataType::LargeBinary;
    let span: fn(&[DataType]) -> DataType =
        |_| DataType::Interval(arrow_schema::IntervalUnit::MonthDayNano);
    let any = || Signature::variadic_any(Volatility::Immutable);
    let mut own = vec![
        stand_in("tumble_start", moment(DataType::Int64), same),
        stand_in("add_micros", moment(DataType::Int64), same),
        stand_in("to_char", moment(DataType::Utf8), |_| DataType::Utf8),
        stand_in("regexp_extract", text, |_| DataType::Utf8),
        stand_in("cast_as", any(), |types| types[1].clone()),
        stand_in("as_is", any(), same),
        stand_in("sort_key", any(), |_| DataType::Binary),
        stand_in("one_nan", any(), same),
        stand_in("only_element", any(), |types| match &types[0] {
            DataType::List(element) => element.data_type().clone(),
            other => other.clone(),
        }),
        stand_in("range_key", any(), |_| DataType::Float64),
        stand_in("interval_bytes", any(), |_| DataType::Binary),
        stand_in("date_trunc", any(), |types| types[1].clone()),
        stand_in("date_minus", any(), |_| DataType::Int32),
        stand_in("date_plus_days", any(), |_| DataType::Date32),
        stand_in("date_minus_days", any(), |_| DataType::Date32),
        stand_in(
            "make_array",
            Signature::user_defined(Volatility::Immutable),
            |types| DataType::new_list(types[0].clone(), true),
        ),
    ];
    for name in ["add", "subtract", "multiply", "divide", "modulo", "negate"] {
        let name: &'static str = format!("numeric_{name}").leak();
        own.push(stand_in(name, any(), numeric));
    }
    own.push(stand_in("extract", any(), numeric));
    own.push(stand_in("extract_whole", any(), |_| {
        DataType::Decimal128(19, 0)
    }));
    own.push(stand_in("extract_micros", any(), |_| {
        DataType::Decimal128(25, 6)
    }));
    let with_zone: fn(&[DataType]) -> DataType =
        |_| DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let nullary = Signature::nullary(Volatility::Stable);
    own.push(stand_in("now", nullary, with_zone));
    for name in [
        "date_trunc_in_session",
        "timestamptz_plus",
        "timestamptz_minus",
    ] {
        own.push(stand_in(name, any(), with_zone));
    }
    let boolean: fn(&[DataType]) -> DataType = |_| DataType::Boolean;
    for name in [
        "textregexeq",
        "textregexne",
        "texticregexeq",
        "texticregexne",
    ] {
        own.push(stand_in(name, any(), boolean));
    }
    for name in [
        "age",
        "interval_of_bytes",
        "timestamp_minus",
        "interval_times",
        "interval_divide",
    ] {
        own.push(stand_in(name, any(), span));
    }
    let replaced: Vec<&str> = own.iter().map(|f: &Arc<ScalarUDF>| f.name()).collect();
    Functions {
        scalar: datafusion_functions::all_default_functions()
            .into_iter()
            .filter(|f| !replaced.contains(&f.name()))
            .chain(own.iter().cloned())
            .collect(),
    }
}

/// The invariants of a plan that `plan.rs` documents.
fn check(relation: &Relation) {
    let Some(job) = &relation.job else { return };
    let mut tables = Vec::new();
    for (i, fragment) in job.fragments.iter().enumerate() {
        assert_eq!(fragment.id as usize, i);
        for output in fragment.output.each() {
            match output {
                Output::Exchange { to, keys } => {
                    assert!(
                        *to > fragment.id && (*to as usize) < job.fragments.len(),
                        "fragment {i} sends to {to}"
                    );
                    assert!(
                        keys.iter()
                            .all(|k| *k < fragment.root.schema.fields().len())
                    );
                }
                Output::Broadcast { to } => assert!(*to > fragment.id),
                Output::Relation => {
                    assert_eq!((i + 1, &fragment.output), (job.fragments.len(), output))
                }
                Output::Several(_) => panic!("outputs within outputs"),
            }
        }
        for node in fragment.nodes() {
            assert!(
                !node.schema.fields().is_empty(),
                "a node without columns: {node:?}"
            );
            match &node.op {
                Op::Receive { from } => {
                    assert!(*from < fragment.id);
                    let sender = &job.fragments[*from as usize];
                    let sent = sender.output.each().iter();
                    let here = sent
                        .filter(|o| matches!(o, Output::Exchange { to, .. } if *to == fragment.id));
                    let all = fragment.nodes();
                    let leaves = all
                        .iter()
                        .filter(|n| matches!(&n.op, Op::Receive { from: other } if other == from));
                    assert_eq!(here.count(), leaves.count());
                    let types = |schema: &SchemaRef| -> Vec<DataType> {
                        schema
                            .fields()
                            .iter()
                            .map(|f| f.data_type().clone())
                            .collect()
                    };
                    assert_eq!(types(&sender.root.schema), types(&node.schema));
                }
                Op::Project { exprs } => {
                    assert_eq!(exprs.len(), node.schema.fields().len());
                    let width = node.inputs[0].schema.fields().len();
                    exprs
                        .iter()
                        .for_each(|e| e.visit_columns(&mut |c| assert!(c < width)));
                }
                Op::Filter { predicate } => {
                    assert_eq!(
                        node.schema.fields().len(),
                        node.inputs[0].schema.fields().len()
                    );
                    predicate.visit_columns(&mut |c| assert!(c < node.schema.fields().len()));
                }
                Op::Join {
                    left_keys,
                    right_keys,
                    residual,
                    output,
                    left_table,
                    right_table,
                    ..
                } => {
                    let (left, right) = (&node.inputs[0].schema, &node.inputs[1].schema);
                    let types = |schema: &arrow_schema::Schema, keys: &[usize]| {
                        keys.iter()
                            .map(|k| schema.field(*k).data_type().clone())
                            .collect::<Vec<_>>()
                    };
                    assert_eq!(types(left, left_keys), types(right, right_keys));
                    assert_eq!(output.len(), node.schema.fields().len());
                    let width = left.fields().len() + right.fields().len();
                    residual
                        .iter()
                        .for_each(|r| r.visit_columns(&mut |c| assert!(c < width)));
                    for (c, field) in output.iter().zip(node.schema.fields()) {
                        let from = if *c < left.fields().len() {
                            left.field(*c)
                        } else {
                            right.field(c - left.fields().len())
                        };
                        assert_eq!(from.data_type(), field.data_type());
                    }
                    tables.extend([*left_table, *right_table]);
                }
                Op::Aggregate {
                    group,
                    calls,
                    table,
                    ..
                } => {
                    assert_eq!(group.len() + calls.len(), node.schema.fields().len());
                    tables.push(*table);
                }
                Op::PartialAggregate { group, calls } => {
                    assert_eq!(group.len() + calls.len(), node.schema.fields().len());
                    assert!(node.inputs[0].properties.append_only);
                }
                Op::Union => {
                    let types = |s: &arrow_schema::Schema| {
                        s.fields()
                            .iter()
                            .map(|f| f.data_type().clone())
                            .collect::<Vec<_>>()
                    };
                    node.inputs
                        .iter()
                        .for_each(|i| assert_eq!(types(&i.schema), types(&node.schema)));
                }
                Op::AsofJoin {
                    left_keys,
                    right_keys,
                    left_time,
                    right_time,
                    output,
                    left_table,
                    right_table,
                    ..
                } => {
                    let (left, right) = (&node.inputs[0].schema, &node.inputs[1].schema);
                    let columns = [left_keys.as_slice(), &[*left_time]].concat();
                    let others = [right_keys.as_slice(), &[*right_time]].concat();
                    let pairs = columns.iter().zip(&others);
                    for (l, r) in pairs {
                        assert_eq!(left.field(*l).data_type(), right.field(*r).data_type());
                    }
                    for columns in [columns, others] {
                        let different: BTreeSet<usize> = columns.iter().copied().collect();
                        assert_eq!(different.len(), columns.len(), "{columns:?}");
                    }
                    assert_eq!(output.len(), node.schema.fields().len());
                    tables.extend([*left_table, *right_table]);
                }
                Op::TemporalJoin { output, table, .. } => {
                    assert!(node.inputs[0].properties.append_only);
                    assert_eq!(output.len(), node.schema.fields().len());
                    tables.push(*table);
                }
                Op::Upsert { table, .. }
                | Op::Materialize { table, .. }
                | Op::Sink { table, .. } => tables.push(*table),
                _ => {}
            }
        }
    }
    tables.sort_unstable();
    assert!(
        tables.windows(2).all(|w| w[0] < w[1]) && tables.iter().all(|t| *t < job.tables),
        "tables {tables:?} of {}",
        job.tables
    );
    let text = serde_json::to_string(relation).expect("a relation serialises");
    assert_eq!(
        &serde_json::from_str::<Relation>(&text).expect("a relation deserialises"),
        relation
    );
}

fn describe(relation: &Relation) -> String {
    let column = |c: &tidemark_plan::Column| {
        let sql_type = if c.sql_type.is_empty() {
            String::new()
        } else {
            format!(" [{}]", c.sql_type)
        };
        format!(
            "{} {}{sql_type}{}",
            c.name,
            c.data_type,
            if c.nullable { "" } else { " not null" }
        )
    };
    let mut text = relation
        .columns
        .iter()
        .map(column)
        .collect::<Vec<_>>()
        .join(", ");
    let key: Vec<&str> = relation
        .key
        .iter()
        .map(|k| relation.columns[*k].name.as_str())
        .collect();
    if !key.is_empty() {
        let _ = write!(
            text,
            "; key ({}){}",
            key.join(", "),
            if relation.key_declared {
                " declared"
            } else {
                ""
            }
        );
    }
    if relation.append_only {
        text.push_str("; append only");
    }
    text
}

fn failed(error: &Error) -> String {
    let mut text = format!("error {}", error.state().0);
    if let Some(position) = error.position() {
        let _ = write!(text, " at {position}");
    }
    let _ = write!(text, ": {error}");
    if let Some(detail) = error.detail() {
        let _ = write!(text, "\ndetail: {detail}");
    }
    if let Some(hint) = error.hint() {
        let _ = write!(text, "\nhint: {hint}");
    }
    text
}

struct Session {
    catalog: Catalog,
    planner: Planner,
    zone: String,
}

impl Session {
    fn new() -> Session {
        let path = ["public".to_string()];
        Session {
            catalog: Catalog {
                schemas: vec!["s2".into()],
                next_id: 1,
                ..Catalog::default()
            },
            planner: Planner::new(Arc::default(), &functions(), &path),
            zone: "UTC".into(),
        }
    }

    fn planner(&self) -> Planner {
        self.planner
            .with(Arc::new(self.catalog.clone()), &["public".to_string()])
            .in_zone(&self.zone)
    }

    fn run(&mut self, sql: &str) -> Result<String, Error> {
        let mut text = String::new();
        for statement in parse(sql)? {
            let query = matches!(&statement.kind, StatementKind::Sql(_));
            let statement = match query {
                true => {
                    parse(&format!("CREATE MATERIALIZED VIEW q AS {}", statement.text))?.remove(0)
                }
                false => statement,
            };
            let planner = self.planner();
            let planned =
                planner.plan_create(RelationId(self.catalog.next_id), &statement, "root")?;
            check(&planned.relation);
            let _ = writeln!(text, "{}", describe(&planned.relation));
            planned
                .notices
                .iter()
                .for_each(|n| text.push_str(&format!("notice: {n}\n")));
            planner
                .explain(&planned.relation)
                .iter()
                .for_each(|line| text.push_str(&format!("{line}\n")));
            if !query {
                self.catalog
                    .relations
                    .insert(planned.relation.id, Arc::new(planned.relation));
                self.catalog.next_id += 1;
            }
        }
        Ok(text.trim_end().to_string())
    }
}

/// Runs the cases of a golden file; answers what the file should be.
fn replay(text: &str) -> String {
    let mut session = Session::new();
    let mut result = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() || line.starts_with("#") {
            result.push_str(&format!("{line}\n"));
            continue;
        }
        if let Some(zone) = line.strip_prefix("zone ") {
            session.zone = zone.to_string();
            result.push_str(&format!("{line}\n"));
            continue;
        }
        let mut sql = line.to_string();
        while let Some(line) = lines.next_if(|l| *l != "----") {
            sql.push_str(&format!("\n{line}"));
        }
        lines.next();
        while lines.next_if(|l| !l.is_empty()).is_some() {}
        let text = match sql.strip_prefix("file ") {
            Some(path) => std::fs::read_to_string(
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("../..")
                    .join(path),
            )
            .expect("the query's file"),
            None => sql.clone(),
        };
        let answer = session.run(&text).unwrap_or_else(|e| failed(&e));
        result.push_str(&format!("{sql}\n----\n{answer}\n"));
    }
    result
}

#[test]
fn goldens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder of goldens")
        .map(|f| f.expect("a file").path())
        .collect();
    files.sort();
    let mut different = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a golden");
        let now = replay(&text);
        if now != text {
            if std::env::var("UPDATE").is_ok() {
                std::fs::write(&file, now).expect("rewriting a golden");
            } else {
                let at = now
                    .lines()
                    .zip(text.lines())
                    .position(|(a, b)| a != b)
                    .unwrap_or(0);
                different.push(format!(
                    "{}:{}: now `{}`",
                    file.display(),
                    at + 1,
                    now.lines().nth(at).unwrap_or("")
                ));
            }
        }
    }
    assert!(
        different.is_empty(),
        "plans changed (UPDATE=1 rewrites them):\n{}",
        different.join("\n")
    );
}
