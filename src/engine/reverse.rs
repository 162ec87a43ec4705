//! Whether what we made goes back to what it was before.

use crate::drivers::Drivers;
use crate::host::Host;
use crate::journal::{self, Journal, Owned};
use crate::resource::{Change, Resource, State};
use anyhow::Result;
use std::collections::BTreeMap;

/// Why a database of ours stays.
pub(super) const ALL_DATA: &str = "with all patient data (--purge removes it)";

/// What becomes of a database and of a vhost that we made when everything is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data {
    Stays,
    /// They go, with the accounts that use them.
    Goes,
}

pub(super) enum Undoing {
    Restore(Change),
    Leave(String),
}

/// What becomes of one thing that we made: it goes back to what it was, unless somebody changed it or needs it.
pub(super) async fn plan_undoing(
    host: &Host,
    drivers: &Drivers,
    instance: &str,
    owned: &Owned,
    others: &Others,
    data: Data,
) -> Result<Undoing> {
    let Change { resource, before: original, after: ours } = &owned.change;
    // A service of ours does not go back to what it was when we first looked: it stops.
    let original = match resource {
        Resource::Service(_) => &State::Absent,
        _ => original,
    };
    let purged = data == Data::Goes && resource.can_be_purged();
    if purged && *original != State::Absent {
        return Ok(Undoing::Leave("it was there before the installation".into()));
    }
    if resource.holds_data(host) && !purged {
        return Ok(Undoing::Leave(match data {
            Data::Goes if resource.is_in_the_database() => "removed with the database".into(),
            _ => why_kept(resource),
        }));
    }
    if let Some((other, _)) = others.find(resource) {
        return Ok(Undoing::Leave(format!("instance {other} uses it")));
    }
    let observed = drivers.observe(host, resource).await?;
    let found = |facet| observed.get(facet);
    let same_thing = ["type", "content", "target"].iter().all(|facet| {
        let expected = ours.get(facet);
        // In the middle of a change it is either what it was or what it was to become.
        expected.is_none()
            || owned.ours().any(|ours| found(facet) == ours.get(facet))
            || (owned.open && found(facet) == original.get(facet))
    });
    let untouched = match original {
        // What we made goes with all its facets: a mode that somebody changed meanwhile is no reason to leave it.
        State::Absent => observed == State::Absent || (same_thing && !owned.holds_edits(&observed)),
        State::Present(_) => original.is_met_by(&observed) || ours.is_met_by(&observed) || (owned.open && same_thing),
    };
    if !untouched {
        return Ok(Undoing::Leave("it was changed since install".into()));
    }
    let after = journal::recalled_state(host, instance, original)?;
    if let Some(lost) = after.content().filter(|content| content.bytes().is_none())
        && observed.content() != Some(lost)
    {
        return Ok(Undoing::Leave("its original content is missing from the journal's directory".into()));
    }
    Ok(Undoing::Restore(Change { resource: resource.clone(), before: observed, after }))
}

/// Why `uninstall` keeps what holds data, or what others may rely on.
fn why_kept(resource: &Resource) -> String {
    match resource {
        Resource::Schema(_) => ALL_DATA.into(),
        Resource::Tables(_) | Resource::Superuser(_) => "part of the database, which is kept".into(),
        Resource::SqlAccount(_) => "logs in to the database, which is kept; --purge removes it".into(),
        Resource::Vhost(_) => "may hold unfinished tasks; --purge removes it".into(),
        Resource::BrokerAccount(_) => "logs in to the vhost, which is kept; --purge removes it".into(),
        Resource::AcmeCertificate(name) => {
            format!("certbot keeps renewing it; `certbot delete --cert-name {name}` removes it")
        }
        Resource::Package(_) => "possibly needed by other software".into(),
        Resource::User(_) | Resource::Group(_) => "files may still belong to it".into(),
        Resource::Service(_) => "not part of CamCOPS, keeps running".into(),
        _ => "it may still be needed".into(),
    }
}

/// What the other instances' journals say: shared things stay while one of them names them.
pub(super) struct Others(BTreeMap<String, Journal>);

impl Others {
    pub(super) fn read(host: &Host, instance: &str) -> Result<Others> {
        let mut journals = BTreeMap::new();
        for name in journal::list_instances(host)? {
            if name != instance {
                let journal = Journal::read(host, &name)?;
                journals.insert(name, journal);
            }
        }
        Ok(Others(journals))
    }

    pub(super) fn find(&self, resource: &Resource) -> Option<(&str, &Owned)> {
        self.0.iter().find_map(|(name, journal)| Some((name.as_str(), journal.find(resource)?)))
    }
}
