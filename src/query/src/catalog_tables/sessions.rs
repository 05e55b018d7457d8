//! Sessions as PostgreSQL's views show them: who is connected and does what, who waits for whom,
//! and what the session that asks has prepared.

use super::build::{Cell, table};
use super::oids;
use crate::privileges::{UNSEEN, may_watch};
use crate::snapshot::Snapshot;
use crate::types;
use datafusion::catalog::TableProvider;
use std::sync::Arc;
use tidemark_common::Result;

const PG_STAT_ACTIVITY: &str = "datid oid = 1, datname name = dev, pid int4, leader_pid int4, \
                                usesysid oid = 10, usename name, application_name text = '', \
                                client_addr text, client_hostname text, client_port int4, \
                                backend_start timestamptz, xact_start timestamptz, query_start \
                                timestamptz, state_change timestamptz, wait_event_type text, \
                                wait_event text, state text, backend_xid int4, backend_xmin int4, \
                                query_id int8, query text, backend_type text = 'client backend'";

const PG_LOCKS: &str = "locktype text = relation, database oid = 1, relation oid, page int4, tuple \
                        int2, virtualxid text, transactionid int4, classid oid, objid oid, \
                        objsubid int2, virtualtransaction text, pid int4, mode text, granted \
                        bool, fastpath bool, waitstart timestamptz";

const PG_PREPARED_STATEMENTS: &str = "name text, statement text, prepare_time timestamptz, \
                                      parameter_types text[], from_sql bool, generic_plans int8 = \
                                      0, custom_plans int8 = 0";

/// `pg_stat_activity`.
pub(super) fn activity(s: &Snapshot) -> Result<Arc<dyn TableProvider>> {
    let locks = s.engine().locks();
    let waits = |pid: i32| locks.iter().any(|l| l.session == pid && !l.granted);
    let row = |(pid, c): (i32, crate::clients::Client)| {
        let doing = c.activity.look();
        if !may_watch(&s.catalog, &s.user, &c.user) {
            return vec![
                ("pid", pid.into()),
                ("usename", (&c.user).into()),
                ("application_name", (&doing.application_name).into()),
                ("query", UNSEEN.into()),
            ];
        }
        let (address, port) = c.address.rsplit_once(':').unwrap_or((&c.address, "0"));
        let wait = if waits(pid) {
            Some(("Lock", "relation"))
        } else if doing.writing {
            Some(("Client", "ClientWrite"))
        } else if doing.running().is_none() {
            Some(("Client", "ClientRead"))
        } else {
            None
        };
        vec![
            ("pid", pid.into()),
            ("usename", (&c.user).into()),
            ("application_name", (&doing.application_name).into()),
            ("client_addr", address.into()),
            ("client_port", port.parse::<i32>().unwrap_or(0).into()),
            ("backend_start", c.since.into()),
            ("xact_start", doing.transaction_start.into()),
            ("query_start", doing.query_start.into()),
            ("state_change", doing.state_change.into()),
            ("wait_event_type", wait.map(|w| w.0).into()),
            ("wait_event", wait.map(|w| w.1).into()),
            ("state", doing.state.into()),
            ("query", doing.query.into()),
        ]
    };
    let rows = s.commons.clients.list().into_iter().map(row);
    table(PG_STAT_ACTIVITY, rows.collect())
}

/// `pg_locks`: the write locks of tables, which exclude each other and let readers through as
/// PostgreSQL's mode of that name does, and advisory locks.
pub(super) fn locks(s: &Snapshot) -> Result<Arc<dyn TableProvider>> {
    let of = |session: i32| ("virtualtransaction", format!("{session}/0").into());
    let of_table = |l: tidemark_node::TableLock| {
        vec![
            ("relation", oids::of_relation(l.table).into()),
            of(l.session),
            ("pid", l.session.into()),
            ("mode", "ShareRowExclusiveLock".into()),
            ("granted", l.granted.into()),
            ("fastpath", false.into()),
            ("waitstart", (!l.granted).then_some(l.since).into()),
        ]
    };
    let advisory = |l: crate::advisory::Entry| {
        let (class, object, kind) = l.key.columns();
        vec![
            ("locktype", "advisory".into()),
            // Oids are kept in 32 bits with a sign.
            ("classid", (class as i32).into()),
            ("objid", (object as i32).into()),
            ("objsubid", kind.into()),
            of(l.session),
            ("pid", l.session.into()),
            ("mode", l.mode.to_string().into()),
            ("granted", l.waiting_since.is_none().into()),
            ("fastpath", false.into()),
            ("waitstart", l.waiting_since.into()),
        ]
    };
    let tables = s.engine().locks().into_iter().map(of_table);
    let advisory = s.commons.advisory.list().into_iter().map(advisory);
    table(PG_LOCKS, tables.chain(advisory).collect())
}

/// `pg_prepared_statements`.
pub(super) fn prepared_statements(s: &Snapshot) -> Result<Arc<dyn TableProvider>> {
    let rows = s.prepared.listed().into_iter().map(|prepared| {
        let types = prepared.types.iter().map(|t| types::format_type(t, -1));
        vec![
            ("name", prepared.name.into()),
            ("statement", prepared.text.into()),
            ("prepare_time", prepared.since.into()),
            ("parameter_types", Cell::Texts(types.collect())),
            ("from_sql", prepared.from_sql.into()),
        ]
    });
    table(PG_PREPARED_STATEMENTS, rows.collect())
}
