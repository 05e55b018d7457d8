//! The columns of generators that need not be listed.

use crate::statement::ColumnDefinition;
use datafusion_sql::sqlparser::ast::{DataType, TimezoneInfo};
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::ConnectorSpec;

/// Refuses a Nexmark source whose columns are asked for by a kind of event that does not exist.
pub(crate) fn check_kind(connector: &ConnectorSpec) -> Result<()> {
    let kind = connector.options.get("nexmark.table.type");
    if connector.connector != "nexmark"
        || kind.is_some_and(|kind| {
            ["person", "auction", "bid"].contains(&kind.to_lowercase().as_str())
        })
    {
        return Ok(());
    }
    let message = match kind {
        Some(kind) => format!("option \"nexmark.table.type\" cannot be '{kind}'"),
        None => "option \"nexmark.table.type\" is required for connector 'nexmark'".into(),
    };
    Err(Error::user(SqlState::INVALID_PARAMETER, message)
        .with_hint("Use one of: Person, Auction, Bid."))
}

/// Nexmark's columns by `nexmark.table.type` (`Person`, `Auction`, `Bid`), as its queries name
/// them.
pub(crate) fn columns(connector: &ConnectorSpec) -> Option<Vec<ColumnDefinition>> {
    if connector.connector != "nexmark" {
        return None;
    }
    let kind = connector.options.get("nexmark.table.type")?.to_lowercase();
    let names: &[(&str, char)] = match kind.as_str() {
        "person" => &[
            ("id", 'n'),
            ("name", 's'),
            ("email_address", 's'),
            ("credit_card", 's'),
            ("city", 's'),
            ("state", 's'),
            ("date_time", 't'),
            ("extra", 's'),
        ],
        "auction" => &[
            ("id", 'n'),
            ("item_name", 's'),
            ("description", 's'),
            ("initial_bid", 'n'),
            ("reserve", 'n'),
            ("date_time", 't'),
            ("expires", 't'),
            ("seller", 'n'),
            ("category", 'n'),
            ("extra", 's'),
        ],
        "bid" => &[
            ("auction", 'n'),
            ("bidder", 'n'),
            ("price", 'n'),
            ("channel", 's'),
            ("url", 's'),
            ("date_time", 't'),
            ("extra", 's'),
        ],
        _ => return None,
    };
    let column = |(name, kind): &(&str, char)| {
        let data_type = match kind {
            'n' => DataType::BigInt(None),
            't' => DataType::Timestamp(None, TimezoneInfo::None),
            _ => DataType::Varchar(None),
        };
        ColumnDefinition {
            name: name.to_string(),
            data_type,
            not_null: false,
            default: None,
            generated: None,
            position: 1,
        }
    };
    Some(names.iter().map(column).collect())
}
