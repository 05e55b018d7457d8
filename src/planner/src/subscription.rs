//! `CREATE SUBSCRIPTION s FROM r WITH (retention = '1 day')`: a relation that keeps the changelog
//! of another one (see [`crate::changelog`]) for a while, so that readers can come back and go on.
//!
//! Its columns are those of `r`, then `op` (Insert, Delete, UpdateInsert, UpdateDelete),
//! `rw_timestamp` (milliseconds since 1970, of the epoch), and [`EPOCH`] and [`ROW`], by which the
//! changes are in order. A temporal filter forgets them. What there is in `r` when the subscription
//! is made are its first changes.

use crate::changelog;
use crate::options::only_options;
use crate::parse::{parse_query, parse_stored};
use crate::statement::{CreateSubscription, CreateView, Statement, StatementKind};
use crate::{Planned, Planner};
use datafusion_sql::sqlparser::ast::Ident;
use tidemark_common::{Error, RelationId, Result, SqlState};
use tidemark_plan::{Relation, RelationKind};
use tidemark_values::moment::{Interval, IntervalFields, read_interval};

/// The column of a subscription that has the epoch of a change.
pub const EPOCH: &str = "_changelog_epoch";
/// The column of a subscription that has the number of a change.
pub const ROW: &str = "_changelog_row_id";

/// What became of a row, and when.
const OWN: [&str; 2] = ["op", "rw_timestamp"];

fn quoted(name: &str) -> String {
    Ident::with_quote('"', name).to_string()
}

/// For how long a subscription keeps changes. Errors: `22023`, `22007`.
fn retention(create: &CreateSubscription) -> Result<Interval> {
    only_options(&create.options, &["retention"])?;
    let Some(text) = create.options.get("retention") else {
        let error = Error::user(
            SqlState::INVALID_PARAMETER,
            "a subscription needs to know for how long it keeps changes",
        );
        return Err(error.with_hint("Write WITH (retention = '1 day')."));
    };
    let span = read_interval(text, IntervalFields::All, 6)?;
    if milliseconds(span) <= 0 {
        return Err(Error::user(
            SqlState::INVALID_PARAMETER,
            "the retention of a subscription must be positive",
        ));
    }
    Ok(span)
}

/// How long an interval is, in milliseconds: a month is 30 days, and a day is 24 hours, also when
/// clocks change.
fn milliseconds(span: Interval) -> i64 {
    let days = 30 * i64::from(span.months) + i64::from(span.days);
    days * 86_400_000 + span.micros / 1000
}

/// For how long this subscription keeps changes, in milliseconds.
pub fn retention_of(subscription: &Relation) -> Result<i64> {
    let statements = parse_stored(&subscription.definition)?;
    match statements.first().map(|statement| &statement.kind) {
        Some(StatementKind::CreateSubscription(create)) => retention(create).map(milliseconds),
        _ => Err(Error::internal(format!(
            "the text of subscription \"{}\" is another statement",
            subscription.name
        ))),
    }
}

/// The columns of a subscription that its cursors show.
pub fn shown_columns(subscription: &Relation) -> impl Iterator<Item = &str> {
    let names = subscription.columns.iter().map(|c| c.name.as_str());
    names.filter(|name| ![EPOCH, ROW].contains(name))
}

/// The columns of a subscription that are those of the relation that it follows.
pub fn followed_columns(subscription: &Relation) -> impl Iterator<Item = &str> {
    shown_columns(subscription).filter(|name| !OWN.contains(name))
}

/// The changes of a relation that are not older than `kept`.
fn changes(relation: &Relation, kept: &str) -> String {
    let columns = relation.visible().map(|(_, c)| quoted(&c.name));
    let columns: Vec<String> = columns.collect();
    let columns = columns.join(", ");
    let call = |mark: &str| format!("{}()", quoted(mark));
    let (op, time) = (call(changelog::OP), call(changelog::TIME));
    let (epoch, row) = (call(changelog::EPOCH), call(changelog::NUMBER));
    let at = quoted(changelog::TIME);
    format!(
        "SELECT {columns}, op, rw_timestamp, {EPOCH}, {ROW} FROM (SELECT {columns}, \
         CASE {op} WHEN 1 THEN 'Insert' WHEN 2 THEN 'Delete' WHEN 3 THEN 'UpdateInsert' \
         ELSE 'UpdateDelete' END AS op, \
         CAST(floor(EXTRACT(EPOCH FROM {time}) * 1000) AS BIGINT) AS rw_timestamp, \
         {epoch} AS {EPOCH}, {row} AS {ROW}, {time} AS {at} \
         FROM {}.{}) AS changes WHERE {at} > now() - {kept}",
        quoted(&relation.schema_name),
        quoted(&relation.name),
    )
}

impl Planner {
    pub(crate) fn subscription(
        &self,
        id: RelationId,
        create: &CreateSubscription,
        statement: &Statement,
        owner: &str,
    ) -> Result<Planned> {
        let kept = format!(
            "INTERVAL '{} milliseconds'",
            milliseconds(retention(create)?)
        );
        let from = &create.from;
        let followed = self.source_relation(from)?;
        let kinds = [RelationKind::Table, RelationKind::MaterializedView];
        if !kinds.contains(&followed.kind) {
            let error = Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a table or materialized view", followed.name),
            );
            return Err(error.at(from.position));
        }
        let own = OWN.into_iter().chain([EPOCH, ROW]);
        let mut columns = followed.visible().map(|(_, column)| column);
        if let Some(column) = columns.find(|c| own.clone().any(|o| o == c.name)) {
            let error = Error::user(
                SqlState::DUPLICATE_COLUMN,
                format!("a subscription has a column \"{}\" of its own", column.name),
            );
            return Err(error.with_hint(
                "Make a materialized view in which that column has another name, and subscribe \
                 to it.",
            ));
        }
        let query_text = changes(&followed, &kept);
        let view = CreateView {
            name: create.name.clone(),
            if_not_exists: create.if_not_exists,
            or_replace: false,
            columns: Vec::new(),
            options: Default::default(),
            query: parse_query(&query_text)?,
            query_text,
            emit_on_window_close: false,
        };
        let mut planned = self.materialized_view(id, &view, statement, owner)?;
        planned.relation.kind = RelationKind::Subscription;
        Ok(planned)
    }
}
