//! Who runs this program.

use crate::base::kernel::read_process;
use crate::host::accounts::user_at_work;
use crate::host::processes::unit_of;
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};
use std::{fmt, fs};

/// What the kernel says of a process whose session began with no login.
const NO_LOGIN: u32 = u32::MAX;

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Actor {
    /// The account that logged in, as the kernel knows it since then; where it does not, the one that sudo names.
    pub(crate) account: String,
    /// Whether that account became root for this, by sudo or su.
    pub(crate) elevated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) terminal: Option<String>,
    /// The unit of systemd that ran it, where nobody had logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<String>,
}

/// Who it is.
pub(crate) fn find_actor() -> Actor {
    let login = read_process(std::process::id(), "loginuid").and_then(|text| text.trim().parse().ok());
    let login = login.filter(|uid| *uid != NO_LOGIN);
    let by_login = login.map(|uid| users::get_user_by_uid(uid).map_or(uid.to_string(), |user| name_of(&user)));
    let account = by_login.unwrap_or_else(user_at_work);
    let myself = users::get_user_by_uid(Uid::effective().as_raw()).map(|user| name_of(&user));
    let terminal = [0, 2].into_iter().find_map(terminal_at);
    let unit = match (login, &terminal) {
        (None, None) => unit_of(std::process::id()),
        _ => None,
    };
    Actor { elevated: myself.is_some_and(|myself| myself != account), account, terminal, unit }
}

fn name_of(user: &users::User) -> String {
    user.name().to_string_lossy().into_owned()
}

/// The terminal that an open file is, such as pts/0.
fn terminal_at(number: u32) -> Option<String> {
    let file = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
    let name = file.to_str()?.strip_prefix("/dev/")?;
    ["pts/", "tty", "console"].iter().any(|begin| name.starts_with(begin)).then(|| name.to_owned())
}

impl fmt::Display for Actor {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(unit) = &self.unit {
            return to.write_str(unit);
        }
        let more = self.elevated.then_some("as root").into_iter().chain(self.terminal.as_deref());
        let more: Vec<&str> = more.collect();
        match more.is_empty() {
            true => to.write_str(&self.account),
            false => write!(to, "{} ({})", self.account, more.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_units_are_told_apart() {
        let mut actor = Actor { account: "anna".into(), elevated: true, terminal: Some("pts/0".into()), unit: None };
        assert_eq!(actor.to_string(), "anna (as root, pts/0)");
        (actor.elevated, actor.terminal) = (false, None);
        assert_eq!(actor.to_string(), "anna");
        actor.unit = Some("camcops-backup@camcops.service".into());
        assert_eq!(actor.to_string(), "camcops-backup@camcops.service");
    }
}
