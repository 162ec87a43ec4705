//! A live install that is cut at each of its steps, one after the other, and killed in the middle of those that take
//! long: it ends as one that nobody disturbed.

use crate::harness::booted::Booted;
use crate::harness::installed::{COMMAND, PASSWORD, bare, installed};
use crate::harness::tier::{is_thorough, one_in};
use crate::harness::{kill, site};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Instant;

const JOURNAL: &str = "/var/lib/camcops-provision/camcops/journal";
const KEY: &str = "/etc/camcops/tls/camcops.key";

/// Steps that take seconds or minutes, and processes that are at work in the middle of them.
const LONG: [(&str, &str); 5] = [
    ("package", "[d]pkg.* --unpack"),
    ("package", "[d]pkg.* --configure"),
    ("release", "[u]v pip install"),
    ("release", "[f]inish.py BUILT FINAL"),
    ("tables", "[u]pgrade_db"),
];

/// What an install makes and what it leaves to others; not what servers keep for themselves, what a boot takes away, and
/// what uv knows of its cache, which a cut run leaves to the next one.
const FILES: &str = r"find /etc /usr /srv /opt /var/lib/camcops* /var/cache/camcops* /var/log/camcops* /var/tmp/camcops* /run/camcops* \
    -xdev \( -path /srv/wheelhouse -o -path '/var/lib/camcops-provision/*/contents' -o -path '*/.cache' -o -path /run/camcops-provision \) -prune \
    -o ! -name uv_cache.json ! -path '/run/*.lock' -printf '%y %m %u:%g %p %l\n' 2> /dev/null || true";

#[test]
fn an_install_is_cut_at_each_of_its_steps() {
    // A program that is built for release has no scissors.
    if !cfg!(debug_assertions) {
        return;
    }
    let Some(machine) = bare() else {
        return;
    };
    let start = Instant::now();
    let cuts = cut_everywhere(&machine);
    eprintln!("{cuts} cuts in {:.0} s", start.elapsed().as_secs_f64());
    assert!(cuts > if is_thorough() { 100 } else { 3 }, "{cuts}");

    site::wait_until_well(&machine, "the last run");
    let (code, pending, _) = machine.tried("camcops-provision plan --exit-code");
    assert_eq!(code, 0, "{pending}");
    machine.run("apt-get install --quiet --yes --no-install-recommends curl > /dev/null");
    let login = site::page(&machine, "login", "");
    assert_eq!(login.status, 200, "{}", login.body);

    let (made, cut) = (owned(&machine), files(&machine));
    drop(machine);

    let (machine, _) = installed().unwrap();
    site::wait_until_well(&machine, "the first boot");
    let (all, uncut) = (owned(&machine), files(&machine));
    // What packages bring along is there already when a later run looks.
    let strange: Vec<_> = made.difference(&all).collect();
    assert!(strange.is_empty(), "{strange:#?}");
    let more: Vec<_> = cut.difference(&uncut).collect();
    let less: Vec<_> = uncut.difference(&cut).collect();
    assert!(more.is_empty() && less.is_empty(), "{more:#?}\n{less:#?}");
}

/// Each run continues, finishes the step at which the last one was cut, begins the next one and is cut. Gives how many
/// were.
fn cut_everywhere(machine: &Booted) -> u32 {
    let (mut cuts, mut open, mut before) = (0, 0, 0);
    let (mut killed, mut key) = (BTreeSet::new(), None);
    let share = one_in(9);
    if !is_thorough() {
        // Where not each step is the last one of a run, those that take long are met on the way.
        for (at, (_, process)) in LONG.iter().enumerate() {
            kill_while(machine, process);
            killed.insert(at);
        }
        (open, before) = (share.first, done(machine));
    }
    loop {
        let step = open_step(machine);
        for (at, (kind, process)) in LONG.iter().enumerate() {
            let is_of_that_kind = step.as_ref().is_some_and(|step| step["kind"] == *kind);
            if is_of_that_kind && killed.insert(at) {
                kill_while(machine, process);
            }
        }
        let status = start(machine, &format!("intent:{}", open + 1)).wait().unwrap();
        if status.success() {
            break;
        }
        assert!(was_cut(status), "{status}\n{}", told(machine));
        cuts += 1;
        // Else its certificate would be another one's until the next step.
        let found = fs::read(machine.path(KEY)).ok();
        assert!(key.is_none() || key == found, "the key was made anew");
        key = found;
        // Packages are begun together: then more than one step is open.
        let now = done(machine);
        let goes_on = now > before && open_step(machine) != step;
        open = if goes_on { share.step } else { open + 1 };
        before = now;
        assert!(open < 50, "it comes no further: {}", told(machine));
    }
    assert_eq!(killed.len(), LONG.len(), "{killed:?}");
    cuts
}

fn start(machine: &Booted, cut: &str) -> Child {
    let told = fs::File::create(machine.path("/root/told")).unwrap();
    let mut run = machine
        .command(COMMAND[0])
        .args(&COMMAND[1..])
        .env("CAMCOPS_PROVISION_CUT", cut)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(told)
        .spawn()
        .unwrap();
    writeln!(run.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    run
}

fn was_cut(status: ExitStatus) -> bool {
    // What enters the machine for it ends as it does.
    status.signal() == Some(Signal::SIGABRT as i32) || status.code() == Some(134)
}

/// Lets a run come so far that such a process is at work, and kills it there.
fn kill_while(machine: &Booted, process: &str) {
    let mut run = start(machine, "intent:1000");
    let at_work = machine.tried(&format!(
        "for n in $(seq 4000); do
             ! pgrep --full '{process}' > /dev/null || exit 0
             [ $n -lt 100 ] || pgrep --exact camcops-provisi > /dev/null || exit 1
             sleep 0.03
         done
         exit 1"
    ));
    assert_eq!(at_work.0, 0, "{process} was not seen: {:?}", told(machine));
    kill(&mut run);
    eprintln!("killed while `{process}` was at work");
}

fn told(machine: &Booted) -> String {
    fs::read_to_string(machine.path("/root/told")).unwrap()
}

fn journal(machine: &Booted) -> Vec<Value> {
    let text = fs::read_to_string(machine.path(JOURNAL)).unwrap_or_default();
    // The last line may be cut, too.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn done(machine: &Booted) -> usize {
    let events = journal(machine);
    events.iter().filter(|one| one["event"] == "done").count()
}

/// What the last run was cut in.
fn open_step(machine: &Booted) -> Option<Value> {
    let events = journal(machine);
    let last = events.iter().rfind(|one| one["event"] == "intent")?;
    Some(last["change"]["resource"].clone())
}

/// Everything that the journal knows.
fn owned(machine: &Booted) -> BTreeSet<String> {
    let events = journal(machine).into_iter();
    events.filter(|event| event["event"] == "intent").map(|event| event["change"]["resource"].to_string()).collect()
}

fn files(machine: &Booted) -> BTreeSet<String> {
    let files: BTreeSet<String> = machine.run(FILES).lines().map(str::to_owned).collect();
    assert!(files.len() > 10_000, "{}", files.len());
    files
}
