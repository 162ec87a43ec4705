//! A dump is loaded by an account that may use its database and no other, whatever the dump says. Its client takes no
//! commands from it.

use super::client::{ClientLogin, ClientPurpose};
use super::dump::DumpSection;
use super::feed::{side_by_side, stream_dump};
use super::scan::DumpScan;
pub(crate) use super::scratch::{
    ScratchDatabase, check_room, clear_up, compare_counts, count_rows, create_login, create_scratch, drop_account,
    drop_scratch, hand_over, need_power, refuse_others, refuse_triggers, switch_tables, were_switched,
};
use crate::base::error::Exit;
use crate::base::signals::{Interrupt, STOPPED};
use crate::drivers::sql::Database;
use crate::host::{Ends, Flow, Host};
use anyhow::Result;
use std::fs::File;

/// More do not make a server of this size faster.
const MOST_CLIENTS: usize = 4;

/// What is loaded.
#[derive(Debug)]
pub(crate) enum DumpSource<'a> {
    /// Our own, whose parts can be loaded side by side.
    Sections {
        file: &'a File,
        sections: &'a [DumpSection],
        /// Its size as text.
        text_bytes: u64,
    },
    /// Any other, from its beginning to its end.
    Stream {
        file: &'a File,
        /// Who decrypts it, if it is encrypted.
        decrypted: Option<Flow>,
    },
}

/// Loads a dump into a database that was made for it. Gives what was seen of one that came as a stream.
pub(crate) async fn load_dump(
    host: &Host,
    known: &Database,
    database: &str,
    source: DumpSource<'_>,
) -> Result<DumpScan> {
    let family = known.server.identity().await?.family;
    let endpoint = create_login(known, database).await?;
    let way = ClientLogin::new(host, &endpoint, family, &format!("load-{}", known.database))?;
    let program = way.program(ClientPurpose::Load)?;
    let start = || {
        way.client(program)
            .args([
                "--batch",
                // Otherwise a dump could have commands for the client.
                "--binary-mode",
                // Nor may it have files read that root can read.
                "--local-infile=0",
                "--default-character-set=utf8mb4",
                "--max-allowed-packet=1G",
                "--",
                database,
            ])
            .flow(Ends::Input)
    };
    let loaded = match source {
        DumpSource::Stream { file, decrypted } => stream_dump(host, start()?, file, decrypted, known.tell),
        DumpSource::Sections { file, sections, text_bytes } => {
            let clients = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, MOST_CLIENTS);
            let clients = (0..clients).map(|_| start()).collect::<Result<_>>()?;
            side_by_side(host, clients, file, sections, text_bytes, known.tell)
        }
    };
    drop(way);
    drop_account(known).await?;
    loaded.map_err(|why| explain_failure(known, why))
}

/// What a client says when it can't load a dump: the fault of the dump, unless the server says otherwise.
fn explain_failure(known: &Database, why: anyhow::Error) -> anyhow::Error {
    if let Err(stopped) = Interrupt::Signals.check(STOPPED) {
        return stopped;
    }
    if why.downcast_ref::<crate::base::error::Failure>().is_some() {
        return why;
    }
    let text = format!("{why:#}");
    let says = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
    let place = &known.server.endpoint.address;
    if says(&["ERROR 2002 ", "ERROR 2003 ", "ERROR 2006 ", "ERROR 2013 ", "ERROR 1053 "]) {
        return Exit::Unreachable.because(format!(
            "database {place}: the server stopped while a dump was loaded ({text}); nothing was changed: fix that and run again"
        ));
    }
    if says(&["ERROR 1114 ", "ERROR 1030 ", "ERROR 3 ", "No space left"]) {
        return Exit::Io.because(format!(
            "database {place}: the server has no room to load the dump ({text}); nothing was changed: free some space there and run again"
        ));
    }
    if says(&["ERROR 1044 ", "ERROR 1142 ", "ERROR 1227 "]) {
        return Exit::Unusable.because(format!(
            "the dump contains more than one database ({text}); nothing was changed: make a dump of this database alone, without --databases and without views, triggers or routines"
        ));
    }
    Exit::Unusable.because(format!("the dump can't be loaded ({text}); nothing was changed"))
}
