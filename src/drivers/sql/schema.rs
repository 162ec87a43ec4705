//! A database of a server.
//!
//! Facets: `charset` and `collation`, which new tables get, and, for a server of our own, `max_packet` and `flush`, what
//! the running server does: the file with its settings is only read when it starts.

use super::{Database, checked_only, quote};
use crate::host::Host;
use crate::resource::{Enforced, Facets, State};
use anyhow::Result;

/// What CamCOPS's own documentation asks for; `utf8mb4` in both families is what others call UTF-8.
pub(crate) const CHARSET: &str = "utf8mb4";
/// The same in every version of both families, so that a dump goes into any of them.
pub(crate) const COLLATION: &str = "utf8mb4_unicode_ci";
/// A photograph travels as one packet.
pub(crate) const MAX_PACKET: u64 = 64 << 20;
/// The value of the facet `max_packet` where packets may be large enough.
pub(crate) const LARGE_ENOUGH: &str = "at least 64 MiB";

/// Whether the database is there, and what it gives its tables.
pub(crate) async fn observe(known: &Database, name: &str) -> Result<State> {
    let server = &known.server;
    if !server.is_there().await? {
        return Ok(State::Absent);
    }
    let row: Option<(String, String, u64, u64)> = server
        .row(&format!(
            "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME, @@GLOBAL.max_allowed_packet, @@GLOBAL.innodb_flush_log_at_trx_commit FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
            quote::quote_text(name)
        ))
        .await?;
    let Some((charset, collation, packet, flush)) = row else {
        return Ok(State::Absent);
    };
    let packet = match packet >= MAX_PACKET {
        true => LARGE_ENOUGH.to_owned(),
        false => format!("{} MiB", packet >> 20),
    };
    Ok(State::Present(
        Facets::new()
            .with("charset", charset)
            .with("collation", collation)
            .with("max_packet", packet)
            .with("flush", flush.to_string()),
    ))
}

/// Makes the database, or gives its next tables the right character set; or drops it. Tables that are there are never
/// converted.
pub(crate) async fn enforce(
    known: &Database,
    host: &Host,
    name: &str,
    before: &State,
    after: &State,
) -> Result<Enforced> {
    let server = &known.server;
    server.started(host).await?;
    let quoted = quote::quote_name(name);
    let Some(wanted) = after.facets() else {
        let gone = format!("DROP DATABASE IF EXISTS {quoted}");
        server.change(&gone).await?;
        return Ok(Enforced::Done);
    };
    let like = charset_clause();
    let differs = |facet| wanted.get(facet).is_some() && wanted.get(facet) != before.get(facet);
    if checked_only(server) {
        return Err(for_others(known, name, before));
    }
    // Looked at again: the server may have been starting when `before` was observed.
    let before = &observe(known, name).await?;
    let mut kept = None;
    if *before == State::Absent {
        server.change(&format!("CREATE DATABASE IF NOT EXISTS {quoted} {like}")).await?;
    } else if differs("charset") || differs("collation") {
        let tables = super::tables_of(server, name).await?.len();
        if tables == 0 {
            server.change(&format!("ALTER DATABASE {quoted} {like}")).await?;
        } else {
            let found = before.text("collation");
            kept = Some(format!(
                "its collation is {}, and its {tables} tables are not converted; `camcops-provision db check --fix-collation` converts them, after a dump",
                found.unwrap_or("another one")
            ));
        }
    }
    if differs("max_packet") {
        server.change(&format!("SET GLOBAL max_allowed_packet = {MAX_PACKET}")).await?;
    }
    if differs("flush")
        && let Some(flush) = wanted.text("flush").and_then(|text| text.parse::<u8>().ok())
    {
        server.change(&format!("SET GLOBAL innodb_flush_log_at_trx_commit = {flush}")).await?;
    }
    Ok(kept.map_or(Enforced::Done, Enforced::LeftAlone))
}

/// What others have to do about a database that this program can only look at.
pub(crate) fn for_others(known: &Database, name: &str, before: &State) -> anyhow::Error {
    let place = &known.server.endpoint.address;
    let (what, verb) = match before {
        State::Absent => ("it does not exist or this account may not use it".to_owned(), "CREATE"),
        State::Present(found) => {
            (format!("new tables get the collation {}", found.text("collation").unwrap_or("of the server")), "ALTER")
        }
    };
    super::for_others(format!(
        "database {name} at {place}: {what}; have the server's administrator run: {verb} DATABASE {} {};",
        quote::quote_name(name),
        charset_clause()
    ))
}

fn charset_clause() -> String {
    format!("CHARACTER SET {CHARSET} COLLATE {COLLATION}")
}
