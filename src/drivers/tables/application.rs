//! How commands of the application are run.

use super::revisions::Revisions;
use crate::base::error::Exit;
use crate::base::progress::Tell;
use crate::base::secret::Secret;
use crate::base::terminal::strip_controls;
use crate::host::{Child, Ended, Host};
use crate::layout::{Layout, PYTHON_HOME};
use crate::settings::Backup;
use anyhow::{Context, Result, bail};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// How long to wait for a command of an earlier run that was cut.
const OLD_RUN_S: &str = "900";

/// How commands of the application are run.
#[derive(Debug)]
pub(crate) struct Application {
    /// The account of the services.
    pub(crate) account: String,
    /// Its environment and its directories.
    pub(crate) environment: Vec<(String, String)>,
    /// Where the tables' dumps go.
    pub(crate) dumps: String,
    /// Who alone can read those that this program needs not read again.
    pub(crate) recipient: Option<String>,
    pub(crate) tell: Tell,
    /// The dump that was just made while nobody could write: a migration needs no other one.
    pub(crate) dumped: RefCell<Option<String>>,
    /// Whether a migration leaves CamCOPS's index of tasks as it is.
    pub(crate) no_reindex: Cell<bool>,
    /// The superuser who is wanted right after the first tables, and the password: CamCOPS takes five seconds to load,
    /// and need not be loaded once more.
    pub(crate) first_superuser: RefCell<Option<(String, Secret)>>,
    pub(super) layout: Layout,
    revisions: RefCell<Option<Option<Rc<Revisions>>>>,
}

impl Application {
    /// The account of the services runs them; `tell` is told what is going on.
    pub(crate) fn new(account: &str, layout: &Layout, backup: &Backup, magick_suffix: &str, tell: Tell) -> Application {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut environment = vec![
            variable("CAMCOPS_CONFIG_FILE", &layout.config),
            variable("HOME", &layout.state),
            variable("LANG", "C.UTF-8"),
            variable("MPLCONFIGDIR", &layout.matplotlib),
            variable("PYTHONDONTWRITEBYTECODE", "1"),
            variable("PYTHONPATH", PYTHON_HOME),
            variable("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ];
        if !magick_suffix.is_empty() {
            environment.push(variable("WAND_MAGICK_LIBRARY_SUFFIX", magick_suffix));
        }
        let recipient = backup.encrypt_to.as_ref();
        Application {
            account: account.to_owned(),
            environment,
            dumps: backup.directory.as_str().to_owned(),
            recipient: recipient.map(|recipient| recipient.as_str().to_owned()),
            tell,
            dumped: RefCell::default(),
            no_reindex: Cell::default(),
            first_superuser: RefCell::default(),
            layout: layout.clone(),
            revisions: RefCell::default(),
        }
    }

    /// The release may have been changed.
    pub(crate) fn forget(&self) {
        self.revisions.take();
    }

    /// The migrations of the installed release; nothing where there is none.
    pub(super) fn revisions(&self, host: &Host) -> Result<Option<Rc<Revisions>>> {
        if let Some(known) = &*self.revisions.borrow() {
            return Ok(known.clone());
        }
        let found = Revisions::read(host, &self.layout.venv)?.map(Rc::new);
        self.revisions.replace(Some(found.clone()));
        Ok(found)
    }

    /// A program of the installed release, as the account of the services, in a session of its own. It holds a lock
    /// until it ends, even if this program is killed meanwhile.
    pub(crate) fn command<'a>(&self, host: &'a Host, program: &str) -> Result<Child<'a>> {
        let program = format!("{}/bin/{program}", self.layout.venv);
        if std::fs::metadata(host.outside(&program)).is_err() {
            return Err(Exit::Unreachable.because(format!(
                "there is no CamCOPS at {}: run `camcops-provision install` without --only and --skip",
                self.layout.venv
            )));
        }
        let (uid, gid) = self.account_numbers(host)?;
        let lock = self.lock(host)?;
        let child = host
            .child("flock")
            .bare()
            .args(["--timeout", OLD_RUN_S, &lock, "setsid", "--wait", "setpriv"])
            .args([format!("--reuid={uid}"), format!("--regid={gid}")])
            .args(["--init-groups", "--", &program])
            .directory(&self.layout.state);
        Ok(child.envs(self.environment.iter().cloned()))
    }

    /// The numbers of the account of the services and of its group.
    pub(crate) fn account_numbers(&self, host: &Host) -> Result<(u32, u32)> {
        let numbers = host.accounts.owner(&format!("{0}:{0}", self.account));
        numbers.with_context(|| format!("the account {} does not exist", self.account))
    }

    /// What a command of CamCOPS holds while it runs. Whoever can read it could hold it, too.
    fn lock(&self, host: &Host) -> Result<String> {
        let lock = host.runtime_file(&format!("{}.lock", self.layout.slug))?;
        match host.stat(&lock)? {
            Some(_) => host.set(&lock, Some((0, 0)), Some(0o600))?,
            None => host.put_file(&lock, b"", Some((0, 0)), 0o600)?,
        }
        Ok(lock)
    }

    /// Waits until a command that an earlier run left behind has ended.
    pub(crate) fn wait_for_old_run(&self, host: &Host) -> Result<()> {
        let lock = self.lock(host)?;
        let arguments = ["--nonblock", lock.as_str(), "true"];
        if host.child("flock").args(arguments).end()?.status.success() {
            return Ok(());
        }
        self.tell.line("waiting for a command of CamCOPS from an earlier run");
        let waited = host.child("flock").args(["--timeout", OLD_RUN_S, &lock, "true"]).end()?;
        match waited.status.code() {
            Some(0) => Ok(()),
            // Its way to say that its time is over.
            Some(1) => Err(Exit::Locked.because(format!(
                "a command of CamCOPS from an earlier run is still running after {OLD_RUN_S} s, and holds {lock}: wait for it, or end the process that `lslocks` names, and run again"
            ))),
            _ => bail!("flock {lock} failed ({}): {}", waited.status, waited.last_words()),
        }
    }
}

/// Whether a command of the application ended well; else its last words, and what to do.
pub(crate) fn check_success(ended: &Ended, command: &str, next: &str) -> Result<()> {
    if ended.status.success() {
        return Ok(());
    }
    bail!("camcops_server {command} failed ({}): {}; {next}", ended.status, strip_controls(&ended.last_words()))
}
