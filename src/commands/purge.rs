//! `uninstall --purge`: the data of an instance goes too, after a dump of its database.

use crate::base::prompt::is_confirmed;
use crate::base::terminal;
use crate::cli::Uninstall;
use crate::drivers::sql::copy::load;
use crate::drivers::{broker, tables};
use crate::engine::Data;
use crate::journal::{self, Journal};
use crate::resource::{Resource, State};
use crate::session::Session;
use anyhow::Result;

/// What the flags want; the data goes only if the instance is named exactly.
pub(crate) fn wanted_data(instance: &str, flags: &Uninstall) -> Result<Data> {
    match is_confirmed(flags.confirm.as_deref(), instance, "the instance whose data would be removed")? {
        true => Ok(Data::Goes),
        false => Ok(Data::Stays),
    }
}

/// Dumps the database and removes the directories with the site's data. Database and vhost go when their turn to be
/// undone comes, so both servers have to be there: one that does not answer would look as if nothing was in it.
pub(crate) async fn before_undoing(site: &Session, journal: &Journal) -> Result<Vec<String>> {
    let host = &site.host;
    let mut dumps = Vec::new();
    let made = |resource: &Resource| {
        let owned = journal.find(resource);
        owned.is_some_and(|owned| owned.change.before == State::Absent)
    };
    if host.staged_root().is_none() {
        for owned in journal.owned() {
            let resource = &owned.change.resource;
            if !made(resource) || is_shared(site, resource)? {
                continue;
            }
            match resource {
                Resource::Schema(name) => {
                    let known = site.drivers.database()?;
                    known.server.started(host).await?;
                    load::refuse_others(&known).await?;
                    let reader = tables::Reader::Somebody;
                    dumps.extend(site.dump_before(name, "purge", reader).await?);
                }
                Resource::Vhost(_) => broker::wait_for_answer(&*site.drivers.broker()?, host).await?,
                _ => {}
            }
        }
    }
    let layout = &site.layout;
    // These hold nothing of anybody else. The others may have been here before, or hold what an uninstall left.
    let own = [&layout.state, &layout.cache, &layout.downloads_home];
    let perhaps = [&layout.data, &layout.logs];
    let perhaps = perhaps.into_iter().filter(|path| made(&Resource::Directory(path.to_string())));
    for directory in own.into_iter().chain(perhaps) {
        if host.stat(directory)?.is_some() {
            terminal::print_note(&format!("  removing {}", host.outside(directory)));
            host.remove_tree(directory)?;
        }
    }
    Ok(dumps)
}

/// Whether another instance relies on it.
pub(crate) fn is_shared(site: &Session, resource: &Resource) -> Result<bool> {
    for other in journal::list_instances(&site.host)? {
        if other != site.instance && Journal::read(&site.host, &other)?.find(resource).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether data of ours is left: then the journal is needed to know it again.
pub(crate) fn is_left(journal: &Journal) -> bool {
    journal.owned().iter().any(|owned| owned.change.resource.can_be_purged() && owned.change.before == State::Absent)
}
