//! What the drivers do, case by case: tests/cases/DRIVER/NAME.toml, as tests/cases/README.md describes them.
//!
//! A case runs in a directory of its own that stands for a machine; programs and servers are played by its steps. None
//! needs root or a machine. `UPDATE_CASES=1 cargo test --lib cases` writes steps and results anew, for you to read in
//! `git diff`.

mod file;
mod machine;

use super::Session;
use crate::drivers::{acme, broker, files, packages, release, services, sql, superuser, tables};
use crate::host::script::{self, Playing, Step};
use crate::resource::{Change, Enforced, Resource, State};
use anyhow::{Result, anyhow, bail};
use file::{Case, Outcome};
use machine::{Machine, facets, state};
use serde_json::{Value as Json, json};
use similar::TextDiff;
use std::fmt::Write as _;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// What a case may hold in place of a secret; nothing that others could read has it.
const SECRET: &str = "-secret";

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// Runs all cases of a driver, and tells those that come out otherwise.
fn run_all(driver: &str) {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(home().join(driver)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no case in tests/cases/{driver}");
    let mut wrong = String::new();
    for path in paths {
        let done = catch_unwind(|| run(&path));
        if let Err(why) = done.unwrap_or_else(|_| Err(anyhow!("it panics, as told above"))) {
            let place = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
            let _ = writeln!(wrong, "{}: {why:#}\n", place.display());
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}If that is right: UPDATE_CASES=1 cargo test --lib cases");
}

fn run(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path)?;
    let is_draft = std::env::var_os("UPDATE_CASES").is_some();
    let case = Case::read(&text)?;
    let (steps, left, outcome) = play(&case, is_draft);
    refuse_secrets(&steps, &outcome)?;
    if is_draft {
        if let Some(step) = left.first() {
            bail!("nobody came to the step {:?}", step.question());
        }
        let written = case.with(&text, &steps, &outcome);
        return Ok(fs::write(path, written)?);
    }
    case.refuse_empty()?;
    let expected = file::told(&case.steps, &case.result);
    let mut actual = file::told(&steps, &outcome);
    if outcome.is_like(&case.result) && left.is_empty() && steps.len() == case.steps.len() {
        let is_like = |(one, other): (&Step, &Step)| one.question().0 == other.question().0;
        if steps.iter().zip(&case.steps).all(is_like) {
            return Ok(());
        }
    }
    if expected == actual {
        actual.push_str("# and it went on after the last step\n");
    }
    let diff = TextDiff::from_lines(&expected, &actual);
    let mut diff = diff.unified_diff();
    bail!("{}\n{}", case.says, diff.header("as the case has it", "as it is"))
}

/// Nothing that other accounts can read has a secret in it: the words and the environment of programs, messages, facets.
fn refuse_secrets(steps: &[Step], outcome: &Outcome) -> Result<()> {
    let mut open: Vec<String> = Vec::new();
    for step in steps {
        open.extend([&step.run, &step.tell, &step.own].into_iter().flatten().cloned());
        open.extend(step.env.values().cloned());
    }
    open.extend([&outcome.error, &outcome.left_alone].into_iter().flatten().cloned());
    open.extend(outcome.state.iter().map(Json::to_string));
    match open.iter().find(|text| text.contains(SECRET)) {
        Some(text) => Err(anyhow!("a secret stands where others can read it: {text}")),
        None => Ok(()),
    }
}

/// Plays a case: what was asked, what nobody came to, and what has come of it.
fn play(case: &Case, is_draft: bool) -> (Vec<Step>, Vec<Step>, Outcome) {
    let machine = Machine::of(case);
    let before_all = machine.tree();
    // What stands there is seen without a step.
    let found = case.resource.as_deref().map(|name| machine.resource(name));
    let found = match &found {
        Some(Resource::File(path) | Resource::Directory(path) | Resource::Symlink(path)) => {
            files::observe(&machine.session.host, path).ok()
        }
        _ => None,
    };
    let playing = Playing::begin(machine.root.path(), &machine.names, &case.machine.lacks, &case.steps, is_draft);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let done = runtime.block_on(act(case, &machine, found));
    let (steps, left) = playing.end();
    let mut outcome = done.unwrap_or_else(|why| Outcome {
        error: Some(script::plain(&machine.names, &format!("{why:#}"))),
        exit: Some(crate::base::error::Exit::of(&why) as u8),
        ..Outcome::default()
    });
    outcome.files = file::changes(&before_all, &machine.tree());
    (steps, left, outcome)
}

/// Does what the case is about.
async fn act(case: &Case, machine: &Machine, found: Option<State>) -> Result<Outcome> {
    let resource = case.resource.as_deref().map(|name| machine.resource(name));
    if let Some(call) = &case.call {
        return call_by_name(call, case, machine, resource).await;
    }
    let resource = resource.ok_or_else(|| anyhow!("the case names no resource"))?;
    let Some(after) = &case.after else {
        let seen = observe(machine, &resource).await?;
        let state = script::plain(&machine.names, &facets(&seen).to_string());
        return Ok(Outcome { state: Some(serde_json::from_str(&state)?), ..Outcome::default() });
    };
    let before = match &case.before {
        Some(before) => state(before),
        None => found.ok_or_else(|| anyhow!("the case has no `before`"))?,
    };
    enforced(enforce(machine, &resource, &before, &state(after)).await?, machine)
}

// The one place that knows how the drivers are called.

async fn observe(machine: &Machine, resource: &Resource) -> Result<State> {
    let Session { host, drivers, .. } = &machine.session;
    drivers.observe(host, resource).await
}

async fn enforce(machine: &Machine, resource: &Resource, before: &State, after: &State) -> Result<Enforced> {
    let Session { host, drivers, .. } = &machine.session;
    drivers.enforce(host, resource, before, after).await
}

async fn call_by_name(call: &str, case: &Case, machine: &Machine, resource: Option<Resource>) -> Result<Outcome> {
    let Session { host, drivers, .. } = &machine.session;
    let services = drivers.services.as_ref();
    let slug = &machine.session.layout.slug;
    let words: Vec<&str> = case.arguments.iter().map(String::as_str).collect();
    let packages_of = |words: &[&str]| -> Vec<Resource> {
        let package = |name: &&str| Resource::Package((*name).to_owned());
        words.iter().map(package).collect()
    };
    let first = words.first().copied().unwrap_or_default();
    match call {
        "packages::install" => packages::install_packages(drivers.packages()?, host, &words, false)?,
        "packages::install again" => packages::install_packages(drivers.packages()?, host, &words, true)?,
        "packages::refuse_offline" => {
            packages::refuse_offline(drivers.packages()?, host, packages_of(&words).iter())?;
        }
        "release::refuse_offline" => release::refuse_offline(drivers.release.as_ref().unwrap(), host, resource.iter())?,
        "sql::refuse_undoable" => {
            let change = Change {
                resource: resource.ok_or_else(|| anyhow!("no resource"))?,
                before: case.before.as_ref().map(state).unwrap_or_default(),
                after: case.after.as_ref().map(state).unwrap_or_default(),
            };
            let database = drivers.database()?;
            sql::refuse_undoable(Some(&database), host, std::iter::once(&change)).await?;
        }
        "services::stop" => services::stop_service(services, host, first)?,
        "services::restart" => services::restart_service(drivers.services()?, host, first).await?,
        "services::stop_ours" => services::stop_ours(drivers.services()?, host)?,
        "services::pause_stale" => services::pause_stale(drivers.services()?, host)?,
        "services::any_of_ours_runs" => return answer(services::any_of_ours_runs(drivers.services()?, host)?),
        "services::before_undoing" => services::before_undoing(services, host, slug)?,
        "services::after_undoing" => services::after_undoing(services, host, slug)?,
        "services::after_removals" => services::after_removals(services, host, &words)?,
        "apache::refuse_unfit" => drivers.refuse_unfit_apache(host)?,
        "apache::follow" => services::apache::follow_changes(drivers.services()?, host)?,
        "broker::answers" => broker::wait_for_answer(&*drivers.broker()?, host).await?,
        "broker::adjust" => return answer(broker::adjust_node(&*drivers.broker()?, host).await?),
        "broker::is_untouched" => return answer(broker::is_untouched(host)?),
        "acme::renew" => {
            let how = acme::Renewal { force: words.contains(&"force"), new_key: words.contains(&"new key") };
            return answer(acme::renew_certificate(drivers.acme()?, host, slug, how)?);
        }
        "acme::renewer" => return answer(acme::find_renewer(host)?),
        "tables::refuse_unknown" => {
            let revision = words.first().copied();
            tables::refuse_unknown(drivers.application()?, host, revision, "the dump")?;
        }
        "superuser::by_camcops" => {
            let password = case.machine.superuser_password.clone();
            let password = password.map(crate::base::secret::Secret::new);
            let refusal = crate::base::error::Exit::Unusable;
            superuser::by_camcops(drivers.application()?, host, first, words[1], password.as_ref(), refusal)?;
        }
        other => return Err(anyhow!("the runner knows no call {other}")),
    }
    Ok(Outcome { done: true, ..Outcome::default() })
}

fn answer(value: impl serde::Serialize) -> Result<Outcome> {
    let answer = match json!(value) {
        Json::Null => "nothing".into(),
        other => other,
    };
    Ok(Outcome { answer: Some(answer), ..Outcome::default() })
}

fn enforced(how: Enforced, machine: &Machine) -> Result<Outcome> {
    Ok(match how {
        Enforced::Done => Outcome { done: true, ..Outcome::default() },
        Enforced::LeftAlone(why) => {
            Outcome { left_alone: Some(script::plain(&machine.names, &why)), ..Outcome::default() }
        }
    })
}

macro_rules! drivers {
    ($($test:ident: $folder:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            run_all($folder);
        })*

        #[test]
        fn every_folder_has_its_test() {
            let known = [$($folder),*];
            for entry in fs::read_dir(home()).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                let is_known = known.contains(&name.as_str());
                assert!(is_known || !entry.path().is_dir(), "tests/cases/{name}?");
            }
        }
    };
}

drivers! {
    accounts: "accounts",
    apache: "apache",
    broker: "broker",
    certbot: "certbot",
    dnf: "dnf",
    apt: "apt",
    files: "files",
    firewall: "firewall",
    mariadb: "mariadb",
    mysql: "mysql",
    release: "release",
    schema: "schema",
    superuser: "superuser",
    supervisor: "supervisor",
    systemd: "systemd",
    tables: "tables",
}

#[test]
fn a_case_that_asserts_nothing_is_refused() {
    let refused = |text: &str| Case::read(text).and_then(|case| case.refuse_empty());
    let head = "says = 'x'\nresource = 'file /x'\n";
    assert!(refused(head).is_err());
    assert!(refused(&format!("{head}[result]\ndone = true\n")).is_err());
    assert!(refused(&format!("{head}[result]\nleft_alone = 'why'\n")).is_ok());
    assert!(refused(&format!("{head}[result]\nleft_alnoe = 'why'\n")).is_err());
    assert!(refused(&format!("{head}colour = 'red'\n[result]\ndone = true\n")).is_err());
    assert!(refused(&format!("{head}[[steps]]\nruns = 'x'\n")).is_err());
}

#[test]
fn a_pattern_is_like_what_it_leaves_out() {
    assert!(script::like("a…c", "abc") && script::like("…", "") && script::like("ab", "ab"));
    assert!(script::like("a…b…c", "a--b--c") && !script::like("a…b…c", "a--c"));
    assert!(!script::like("a…", "ba") && !script::like("ab", "abc"));
}
