//! Whose word is followed: what a file says is done as whoever runs the program, so nobody else may be able to change it.

use super::{Host, PathInfo, entry_of_stat};
use crate::base::error::Exit;
use crate::base::text::shell_word;
use anyhow::Result;
use nix::sys::stat::fstat;
use nix::unistd::getegid;
use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Others may make files in such a directory, and can't replace those of root.
const STICKY: u32 = 0o1000;

/// Who may own and change what is followed.
#[derive(Debug)]
pub(crate) struct Trust<'a> {
    host: &'a Host,
    users: Vec<u32>,
    /// Groups that may have the right to write.
    groups: Vec<u32>,
}

impl Host {
    /// Root and whoever runs the program; on a staged tree also whoever the tree belongs to, and can change all of it.
    pub(crate) fn trust(&self) -> Result<Trust<'_>> {
        let (mut users, mut groups) = (vec![0, self.me.as_raw()], vec![0]);
        if !self.me.is_root() {
            groups.push(getegid().as_raw());
        }
        if self.staged.is_some() {
            let owner = entry_of_stat(&fstat(&self.root)?);
            users.push(owner.uid);
            groups.push(owner.gid);
        }
        Ok(Trust { host: self, users, groups })
    }

    /// Refuses a file, as it was opened, that others could have written to, or put where it is.
    pub(crate) fn refuse_foreign(&self, path: &str, found: &PathInfo) -> Result<()> {
        let (trust, outside) = (self.trust()?, self.outside(path));
        trust.check(&outside, (found.uid, found.gid, found.mode), "")?;
        trust.check_way(Path::new(&outside))
    }
}

impl Trust<'_> {
    /// The same for a file or directory that is not looked at through the host; `what` says what it has to do with.
    pub(crate) fn check_opened(&self, path: &Path, found: &Metadata, what: &str) -> Result<()> {
        let owner = (found.uid(), found.gid(), found.permissions().mode());
        self.check(&path.display().to_string(), owner, what)
    }

    /// Each directory on the way to a file, as it is named and as links lead there: who can change one of them can put
    /// another file in the place of this one.
    pub(crate) fn check_way(&self, file: &Path) -> Result<()> {
        if !self.host.me.is_root() || self.host.staged.is_some() {
            return Ok(());
        }
        let named = std::path::absolute(file)?;
        let led_to = fs::canonicalize(file).unwrap_or_else(|_| named.clone());
        for file in [named, led_to] {
            let mut above: Vec<PathBuf> = file.ancestors().skip(1).map(Path::to_owned).collect();
            above.reverse();
            for directory in above {
                let Ok(found) = fs::symlink_metadata(&directory) else {
                    break;
                };
                let mode = found.permissions().mode();
                let is_sticky = mode & STICKY != 0 && found.uid() == 0;
                if found.is_dir() && !is_sticky {
                    self.check_opened(&directory, &found, &format!(" ({} is in it)", file.display()))?;
                }
            }
        }
        Ok(())
    }

    fn check(&self, path: &str, (uid, gid, mode): (u32, u32, u32), what: &str) -> Result<()> {
        let is_foreign = !self.users.contains(&uid);
        let by_others = mode & 0o002 != 0;
        let by_group = mode & 0o020 != 0 && !self.groups.contains(&gid);
        let owner = self.host.accounts.owner_name(uid, gid);
        let (user, group) = owner.split_once(':').unwrap_or((&owner, ""));
        let quoted = shell_word(Path::new(path));
        let (how, command) = match (is_foreign, by_others) {
            (true, false) => (format!("belongs to {user}"), format!("chown root:root {quoted}")),
            (true, true) => (
                format!("belongs to {user} and can be changed by everybody"),
                format!("chown root:root {quoted} && chmod go-w {quoted}"),
            ),
            (false, true) => ("can be changed by everybody".to_owned(), format!("chmod go-w {quoted}")),
            (false, false) if by_group => {
                (format!("can be changed by the group {group}"), format!("chmod g-w {quoted}"))
            }
            (false, false) => return Ok(()),
        };
        Err(Exit::CannotCreate.because(format!(
            "{path}{what} {how}, and root acts on its content; nothing was changed: check its content, then run `{command}`, and try again"
        )))
    }
}
