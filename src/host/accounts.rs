//! Names and numbers of accounts, on this machine (through its own name service) or in a staged tree.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Accounts whose number is the same on every machine of their family, for a staged tree that has no list yet.
const WELL_KNOWN: [(&str, u32); 3] = [("root", 0), ("www-data", 33), ("apache", 48)];
const WELL_KNOWN_GROUPS: [(&str, u32); 4] = [("root", 0), ("adm", 4), ("www-data", 33), ("apache", 48)];

#[derive(Debug)]
pub(crate) enum Accounts {
    /// The machine's own name service, directory services included.
    Live(Asked),
    /// The lists of a staged tree.
    Staged {
        /// Account numbers by name.
        users: BTreeMap<String, u32>,
        /// Group numbers by name.
        groups: BTreeMap<String, u32>,
    },
}

/// What the name service has answered: each question may read files, or ask a server far away. Who is not there yet may
/// come with a package, so that is not kept.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    uids: Mutex<BTreeMap<String, u32>>,
    gids: Mutex<BTreeMap<String, u32>>,
    users: Mutex<BTreeMap<u32, String>>,
    groups: Mutex<BTreeMap<u32, String>>,
}

/// The answer from before, or a new one.
fn ask_once<K: Ord + Clone, V: Clone>(
    known: &Mutex<BTreeMap<K, V>>,
    key: &K,
    ask: impl FnOnce(&K) -> Option<V>,
) -> Option<V> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(answer) = known.get(key) {
        return Some(answer.clone());
    }
    let answer = ask(key)?;
    known.insert(key.clone(), answer.clone());
    Some(answer)
}

impl Accounts {
    /// This machine's.
    pub(crate) fn live() -> Accounts {
        Accounts::Live(Asked::default())
    }

    /// Those of a staged tree, from the text of its passwd and group files.
    pub(crate) fn staged(passwd: &str, group: &str) -> Accounts {
        Accounts::Staged {
            users: parse_accounts(passwd, &WELL_KNOWN),
            groups: parse_accounts(group, &WELL_KNOWN_GROUPS),
        }
    }

    /// An account's number.
    pub(crate) fn uid(&self, name: &str) -> Option<u32> {
        match self {
            Accounts::Live(asked) => {
                ask_once(&asked.uids, &name.to_owned(), |name| users::get_user_by_name(name).map(|user| user.uid()))
            }
            Accounts::Staged { users, .. } => users.get(name).copied(),
        }
    }

    /// A group's number.
    pub(crate) fn gid(&self, name: &str) -> Option<u32> {
        match self {
            Accounts::Live(asked) => {
                ask_once(&asked.gids, &name.to_owned(), |name| users::get_group_by_name(name).map(|group| group.gid()))
            }
            Accounts::Staged { groups, .. } => groups.get(name).copied(),
        }
    }

    /// `user:group` as numbers, if both are known here.
    pub(crate) fn owner(&self, owner: &str) -> Option<(u32, u32)> {
        let (user, group) = owner.split_once(':')?;
        let number = |known: Option<u32>, name: &str| known.or_else(|| name.parse().ok());
        Some((number(self.uid(user), user)?, number(self.gid(group), group)?))
    }

    /// `user:group` by name where there is one, by number elsewhere.
    pub(crate) fn owner_name(&self, uid: u32, gid: u32) -> String {
        let (user, group) = match self {
            Accounts::Live(asked) => (
                ask_once(&asked.users, &uid, |uid| {
                    let user = users::get_user_by_uid(*uid)?;
                    Some(user.name().to_string_lossy().into_owned())
                }),
                ask_once(&asked.groups, &gid, |gid| {
                    let group = users::get_group_by_gid(*gid)?;
                    Some(group.name().to_string_lossy().into_owned())
                }),
            ),
            Accounts::Staged { users, groups } => (name_of_number(users, uid), name_of_number(groups, gid)),
        };
        format!("{}:{}", user.unwrap_or_else(|| uid.to_string()), group.unwrap_or_else(|| gid.to_string()))
    }
}

/// Who runs the program, by the name that sudo has from them.
pub(crate) fn user_at_work() -> String {
    std::env::var("SUDO_USER")
        .ok()
        .or_else(|| users::get_current_username().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| nix::unistd::getuid().to_string())
}

fn parse_accounts(text: &str, well_known: &[(&str, u32)]) -> BTreeMap<String, u32> {
    let mut numbers: BTreeMap<String, u32> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            Some((name.to_owned(), fields.nth(1)?.parse().ok()?))
        })
        .collect();
    if numbers.is_empty() {
        numbers = well_known.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect();
    }
    numbers
}

fn name_of_number(numbers: &BTreeMap<String, u32>, wanted: u32) -> Option<String> {
    numbers.iter().find(|(_, number)| **number == wanted).map(|(name, _)| name.clone())
}
