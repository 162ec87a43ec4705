//! A run that ends in the middle, wherever and however: the next one continues, and `uninstall` leaves the first tree.
//!
//! The cuts go everywhere: after each intent and after each write of a run, until a run is no longer cut. Nobody has to
//! extend this when there is a new resource. All of them are for `tests/run --thorough`; every landing takes its share.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod common;

use common::tier::{Share, leave_out, one_in};
use common::{HOME, Ran, Staged, Tree, Who, is_root};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Everybody's things in the way, so that a run also adopts, changes and gives back.
fn lived_in(who: Who) -> Staged {
    let staged = Staged::of(who, "debian").with_accounts();
    let site = "etc/apache2/sites-available/camcops.conf";
    staged.write(site, "# by hand\n");
    staged.chmod(site, 0o604);
    staged.write("etc/camcops/camcops.conf", "[site]\nLANGUAGE = da_DK\nMINE = 1\n");
    staged.write("etc/camcops/notes.txt", "not ours\n");
    staged.directory("srv/camcops");
    staged.chmod("srv/camcops", 0o701);
    staged.directory("usr/bin");
    symlink("elsewhere", staged.at("usr/bin/camcops_server")).unwrap();
    staged.give(&staged.at("usr/bin/camcops_server"));
    staged.write("usr/bin/camcops_server_meta", "#!/bin/sh\n");
    staged.chmod("usr/bin/camcops_server_meta", 0o700);
    if who == Who::Root {
        for path in ["srv/camcops", "usr/bin/camcops_server_meta"] {
            common::give_to(&staged.at(path), 1234, 1235);
        }
    }
    staged
}

fn anybody() -> Who {
    Who::all()[0]
}

/// Cuts a run on a copy of a tree after each of its writes (or intents), and judges what is left each time.
fn cut_everywhere(start: &Staged, arguments: &[&str], points: &str, share: Share, judge: impl Fn(Staged) + Sync) {
    if !cfg!(debug_assertions) {
        // A program that is built for release has no scissors.
        return;
    }
    let (next, cuts) = (AtomicU32::new(1 + share.first), AtomicU32::new(0));
    let work = || {
        loop {
            let number = next.fetch_add(share.step, Ordering::Relaxed);
            let staged = start.copy();
            let ran = staged.cut(points, number, arguments);
            if !ran.was_cut() {
                ran.exits(0);
                return;
            }
            cuts.fetch_add(1, Ordering::Relaxed);
            let judged = std::panic::AssertUnwindSafe(|| judge(staged));
            if let Err(why) = std::panic::catch_unwind(judged) {
                // The reason was printed by the panic itself.
                eprintln!("it was after {points}:{number} of {arguments:?}");
                next.store(1_000_000, Ordering::Relaxed);
                std::panic::resume_unwind(why);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
    // A share that begins late has one cut less: what counts is how far it came.
    let cuts = cuts.into_inner();
    assert!(cuts > 0 && share.first + cuts * share.step > 10, "hardly anything was cut");
}

/// After a cut of `install`: continuing leads to the whole, and undoing to the beginning.
fn continues_and_undoes(cut: Staged, first: &Tree, whole: &Tree) {
    let undone = cut.copy();
    undone.run(&["uninstall"]).exits(0);
    first.assert_same(&undone.tree().untimed(), "uninstall right after the cut");
    drop(undone);
    cut.run(&["install", "--adopt"]).exits(0);
    whole.assert_same(&cut.tree().masked(), "install after the cut");
    cut.run(&["plan", "--exit-code"]).exits(0);
    cut.run(&["uninstall"]).exits(0);
    first.assert_same(&cut.tree().untimed(), "install and uninstall after the cut");
}

fn installed(start: &Staged) -> Staged {
    let whole = start.copy();
    whole.run(&["install", "--adopt"]).exits(0);
    whole
}

#[test]
fn install_is_cut_after_each_write() {
    let start = lived_in(anybody());
    let (first, whole) = (start.tree().untimed(), installed(&start).tree().masked());
    cut_everywhere(&start, &["install", "--adopt"], "write", one_in(9), |cut| {
        continues_and_undoes(cut, &first, &whole);
    });
}

#[test]
fn install_is_cut_after_each_intent() {
    let start = lived_in(anybody());
    let (first, whole) = (start.tree().untimed(), installed(&start).tree().masked());
    cut_everywhere(&start, &["install", "--adopt"], "intent", one_in(9), |cut| {
        continues_and_undoes(cut, &first, &whole);
    });
}

#[test]
fn install_into_an_empty_tree_is_cut() {
    for who in Who::all() {
        let start = Staged::empty(*who);
        let (first, whole) = (start.tree().untimed(), installed(&start).tree().masked());
        cut_everywhere(&start, &["install"], "write", one_in(13), |cut| {
            continues_and_undoes(cut, &first, &whole);
        });
    }
}

#[test]
fn uninstall_is_cut_after_each_write() {
    let start = lived_in(anybody());
    let first = start.tree().untimed();
    let installed = installed(&start);
    let whole = installed.tree().masked();
    cut_everywhere(&installed, &["uninstall"], "write", one_in(9), |cut| {
        let undone = cut.copy();
        undone.run(&["uninstall"]).exits(0);
        first.assert_same(&undone.tree().untimed(), "uninstall after the cut");
        cut.run(&["install", "--adopt"]).exits(0);
        whole.assert_same(&cut.tree().masked(), "install after the cut");
        cut.run(&["uninstall"]).exits(0);
        first.assert_same(&cut.tree().untimed(), "install and uninstall after the cut");
    });
}

#[test]
fn uninstall_from_an_empty_tree_is_cut() {
    let start = Staged::empty(anybody());
    let first = start.tree().untimed();
    cut_everywhere(&installed(&start), &["uninstall"], "write", one_in(13), |cut| {
        cut.run(&["uninstall"]).exits(0);
        first.assert_same(&cut.tree().untimed(), "uninstall after the cut");
    });
}

#[test]
fn a_repair_with_other_settings_is_cut() {
    let start = lived_in(anybody());
    let first = start.tree().untimed();
    let mut drifted = installed(&start);
    for path in ["etc/camcops/tls", "etc/camcops/camcops.my.cnf", "var/lib/camcops"] {
        drifted.chmod(path, 0o777);
    }
    fs::remove_file(drifted.at("etc/ufw/applications.d/camcops")).unwrap();
    drifted.settings = vec![
        "services.manager=supervisor".into(),
        "web.path=/camcops".into(),
        "site.region=DK".into(),
        "logging.mode=file".into(),
    ];
    let whole = installed(&drifted).tree().masked();
    cut_everywhere(&drifted, &["install", "--adopt"], "write", one_in(23), |cut| {
        continues_and_undoes(cut, &first, &whole);
    });
}

#[test]
fn edits_outlast_a_cut_update() {
    let start = Staged::of(anybody(), "debian");
    let mut edited = installed(&start);
    let path = "etc/camcops/camcops.conf";
    let text = edited.read(path).replace("SESSION_TIMEOUT_MINUTES = 30", "SESSION_TIMEOUT_MINUTES = 7");
    fs::write(edited.at(path), text).unwrap();
    edited.settings = vec!["site.region=DK".into(), "site.language=da_DK".into()];
    let whole = installed(&edited).tree().masked();
    cut_everywhere(&edited, &["install"], "write", one_in(9), |mut cut| {
        cut.run(&["install"]).exits(0);
        whole.assert_same(&cut.tree().masked(), "install after the cut");
        // The next change knows what is the administrator's and what is not.
        cut.settings = vec!["site.region=SE".into()];
        cut.run(&["install"]).exits(0);
        let text = cut.read(path);
        for line in ["SESSION_TIMEOUT_MINUTES = 7", "REGION_CODE = SE", "LANGUAGE = en_GB"] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    });
}

#[test]
fn settings_that_change_between_the_cut_and_the_next_run_are_not_taken_for_edits() {
    let mut start = installed(&Staged::of(anybody(), "debian"));
    start.settings = vec!["site.region=DK".into()];
    cut_everywhere(&start, &["install"], "write", one_in(9), |mut cut| {
        cut.settings = vec!["site.region=SE".into()];
        cut.run(&["install"]).exits(0);
        let text = cut.read("etc/camcops/camcops.conf");
        assert!(text.contains("REGION_CODE = SE"), "{text}");
    });
}

#[test]
fn the_second_instance_is_cut() {
    let empty = Staged::of(anybody(), "debian");
    let first = empty.tree().untimed();
    let start = installed(&empty);
    let one = start.tree().masked();
    let both = start.copy();
    both.on("two", &["install"]).exits(0);
    let both = both.tree().masked();
    let install = ["--instance", "two", "install"];
    cut_everywhere(&start, &install, "write", one_in(29), |cut| {
        let undone = cut.copy();
        undone.on("two", &["uninstall"]).exits(0);
        one.assert_same(&undone.tree().masked(), "uninstall of the second after the cut");
        undone.run(&["uninstall"]).exits(0);
        first.assert_same(&undone.tree().untimed(), "uninstall of both");
        let left = cut.copy();
        left.run(&["uninstall"]).exits(0);
        left.on("two", &["uninstall"]).exits(0);
        first.assert_same(&left.tree().untimed(), "uninstall of both, the first one first");
        cut.on("two", &["install"]).exits(0);
        both.assert_same(&cut.tree().masked(), "install of the second after the cut");
    });
}

/// A run that waits in its middle, because nobody reads what it says.
// The caller waits for its end.
#[allow(clippy::zombie_processes)]
fn waiting(staged: &Staged, arguments: &[&str]) -> Child {
    let mut command = staged.command(arguments);
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    // Something of nobody's that takes most of the room.
    (&writer).write_all(&[b'\n'; 3000]).unwrap();
    command.stderr(Stdio::from(writer));
    let mut child = command.spawn().unwrap();
    drop(command);
    // From here on it can be read like any other.
    child.stderr = Some(std::os::fd::OwnedFd::from(reader).into());
    let journal = staged.at(&format!("{HOME}/camcops/journal"));
    let (mut size, mut quiet) = (0, 0);
    for _ in 0..3000 {
        std::thread::sleep(Duration::from_millis(20));
        let now = fs::metadata(&journal).map_or(0, |found| found.len());
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        // On a busy machine a run may also stand still because it is not its turn.
        let sleeps = stat.rsplit(')').next().unwrap().trim().starts_with('S');
        quiet = if sleeps && now > 0 && now == size { quiet + 1 } else { 0 };
        size = now;
        if quiet == 5 {
            return child;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    panic!("it never waits");
}

#[test]
fn a_signal_ends_a_run_between_two_changes() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        for &who in Who::all() {
            let staged = Staged::of(who, "debian");
            let first = staged.tree().untimed();
            let whole = installed(&staged).tree().masked();
            for command in ["install", "uninstall"] {
                let child = waiting(&staged, &[command]);
                kill(Pid::from_raw(child.id() as i32), signal).unwrap();
                std::thread::sleep(Duration::from_millis(100));
                let ran = Ran::end_of(child, format!("{command} with {signal}")).exits(1);
                // What was said meanwhile may come out after it: it was the pipe that was full.
                let mut lines = ran.err.lines();
                let last = lines.rfind(|line| line.starts_with("error: ")).unwrap();
                assert!(last.contains("stopped by a signal") && last.contains("changes done"), "{ran}");
                let numbers: Vec<usize> = last.split_whitespace().filter_map(|word| word.parse().ok()).collect();
                assert!(
                    matches!(numbers[..], [done, all, left] if done > 0 && left > 0 && done + left == all),
                    "{last}"
                );
                staged.run(&[command]).exits(0);
                match command {
                    "install" => whole.assert_same(&staged.tree().masked(), "install after a signal"),
                    _ => first.assert_same(&staged.tree().untimed(), "uninstall after a signal"),
                }
            }
        }
    }
}

#[test]
fn killed_again_and_again() {
    let start = lived_in(anybody());
    let (first, whole) = (start.tree().untimed(), installed(&start).tree().masked());
    let mut random = std::process::id();
    for round in 0..3 {
        let staged = start.copy();
        for (command, times) in [("install", 12), ("uninstall", 6), ("install", 6)] {
            for _ in 0..times {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let mut child = staged.command(&[command, "-q"]).args(adopting(command)).spawn().unwrap();
                std::thread::sleep(Duration::from_micros(u64::from(random >> 8) % 40_000));
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
        let undone = staged.copy();
        undone.run(&["uninstall"]).exits(0);
        first.assert_same(&undone.tree().untimed(), &format!("uninstall, round {round}"));
        staged.run(&["install", "--adopt"]).exits(0);
        whole.assert_same(&staged.tree().masked(), &format!("install, round {round}"));
    }
}

fn adopting(command: &str) -> &'static [&'static str] {
    if command == "install" { &["--adopt"] } else { &[] }
}

#[test]
fn of_two_runs_at_once_one_works() {
    for &who in Who::all() {
        let staged = Staged::of(who, "debian");
        let first = staged.tree().untimed();
        let mut child = waiting(&staged, &["install"]);
        let holder = format!("process {}", child.id());
        let before = staged.tree();
        for arguments in [&["install"][..], &["uninstall"], &["--instance", "two", "install"]] {
            staged.run(arguments).exits(75).says(&holder);
        }
        before.assert_same(&staged.tree(), "a run that may not");
        // Looking is always allowed.
        staged.run(&["plan", "--exit-code"]).exits(2);
        child.kill().unwrap();
        child.wait().unwrap();
        staged.run(&["uninstall"]).exits(0);
        first.assert_same(&staged.tree().untimed(), "uninstall");
    }
}

#[test]
fn several_first_runs_at_once() {
    for round in 0..8 {
        let start = match round % 2 {
            0 => Staged::empty(anybody()),
            _ => Staged::of(anybody(), "debian"),
        };
        let first = start.tree().untimed();
        let whole = installed(&start).tree().masked();
        let mut children = Vec::new();
        for _ in 0..4 {
            children.push(start.command(&["install"]).spawn().unwrap());
        }
        let pids: Vec<String> = children.iter().map(|child| child.id().to_string()).collect();
        let ends: Vec<Ran> = children.into_iter().map(|child| Ran::end_of(child, "install".into())).collect();
        for ran in &ends {
            match ran.status.code() {
                Some(0) => {}
                Some(75) => assert!(pids.iter().any(|pid| ran.err.contains(pid.as_str())), "{ran}"),
                _ => panic!("{ran}"),
            }
        }
        let done = |ran: &&Ran| ran.out.contains("changes made");
        assert_eq!(ends.iter().filter(done).count(), 1, "{ends:#?}");
        whole.assert_same(&start.tree().masked(), "several first runs");
        start.run(&["uninstall"]).exits(0);
        first.assert_same(&start.tree().untimed(), "uninstall");
    }
}

fn journal() -> String {
    format!("{HOME}/camcops/journal")
}

#[test]
fn a_torn_last_line_is_no_line() {
    let start = lived_in(anybody());
    let first = start.tree().untimed();
    let installed = installed(&start);
    let whole = installed.tree().masked();
    let bytes = fs::read(installed.at(&journal())).unwrap();
    for torn in [1, 5, 30, 200, 700] {
        let staged = installed.copy();
        fs::write(staged.at(&journal()), &bytes[..bytes.len() - torn]).unwrap();
        let undone = staged.copy();
        undone.run(&["uninstall"]).exits(0);
        // What the journal does not know of is nobody's.
        if torn < 30 {
            first.assert_same(&undone.tree().untimed(), "uninstall");
        }
        staged.run(&["install", "--adopt"]).exits(0);
        whole.assert_same(&staged.tree().masked(), "install");
        staged.run(&["plan", "--exit-code"]).exits(0);
    }
    let half = br#"{"event":"intent","number":999,"chan"#;
    fs::write(installed.at(&journal()), [&bytes[..], half].concat()).unwrap();
    installed.run(&["plan", "--exit-code"]).exits(0);
    installed.run(&["uninstall"]).exits(0);
    first.assert_same(&installed.tree().untimed(), "uninstall");
}

#[test]
fn a_journal_of_a_newer_format_is_refused() {
    let staged = installed(&Staged::of(anybody(), "debian"));
    let text = staged.read(&journal());
    fs::write(staged.at(&journal()), text.replacen("\"format\":1", "\"format\":2", 1)).unwrap();
    let before = staged.tree();
    for command in ["install", "plan", "status", "uninstall"] {
        let ran = staged.run(&[command]).exits(65).says("a newer version").says(&journal());
        assert_eq!(ran.err.lines().count(), 1, "{ran}");
        before.assert_same(&staged.tree(), command);
    }
}

#[test]
fn a_journal_that_is_damaged_is_named() {
    let staged = installed(&Staged::of(anybody(), "debian"));
    let text = staged.read(&journal());
    fs::write(staged.at(&journal()), text.replacen("\"event\":\"done\"", "\"event\":", 1)).unwrap();
    let before = staged.tree();
    for command in ["install", "uninstall"] {
        let ran = staged.run(&[command]).exits(65).says(&journal()).says("line");
        assert_eq!(ran.err.lines().count(), 1, "{ran}");
        before.assert_same(&staged.tree(), command);
    }
}

#[test]
fn a_journal_of_format_1_is_read() {
    let staged = Staged::of(anybody(), "debian");
    let first = staged.tree().untimed();
    for (path, mode) in [("var", 0o755), ("var/lib", 0o755), (HOME, 0o700)] {
        staged.directory(path);
        staged.chmod(path, mode);
    }
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/journal");
    let fixture = |name: &str| fs::read_to_string(format!("{fixtures}/{name}")).unwrap();
    staged.write(&format!("{HOME}/lock"), "/var\n/var/lib");
    staged.write(&journal(), &fixture("format-1"));
    let digest = "25718360e05d3c2d0963d1381e9dd4dae5fca789244ee4b9f861adcc0cc96218";
    staged.write(&format!("{HOME}/camcops/contents/{digest}"), &fixture("format-1.original"));
    // What that journal tells of.
    staged.directory("etc/camcops");
    staged.write("etc/camcops/new", "new\n");
    staged.write("etc/adopted", "ours\n");
    symlink("camcops/new", staged.at("etc/link")).unwrap();
    staged.give(&staged.at("etc/link"));
    staged.write("etc/half", "half\n");
    staged.run(&["status"]).exits(0).says("interrupted");
    staged.run(&["uninstall"]).exits(0);
    let mut expected = first;
    let left = staged.tree().untimed();
    assert_eq!(left.0["/etc/adopted"].data, fixture("format-1.original").into_bytes());
    expected.0.insert("/etc/adopted".into(), left.0["/etc/adopted"].clone());
    expected.assert_same(&left, "uninstall with an older journal");
}

/// Runs a shell script in a mount namespace of its own, where its mounts vanish with it.
fn with_mounts(script: &str, staged: &Staged) -> Option<Ran> {
    let mut command = Command::new("unshare");
    let binary = env!("CARGO_BIN_EXE_camcops-provision");
    command
        .args(["--mount", "--propagation", "private", "/bin/sh", "-euc", script, "sh"])
        .arg(binary)
        .arg(staged.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let ran = Ran::of(command);
    let refused = ran.err.contains("unshare failed") || ran.err.contains("permission denied");
    if refused {
        leave_out("mounts are not allowed here");
        return None;
    }
    Some(ran)
}

#[test]
fn a_full_disk_stops_a_run_and_the_next_one_continues() {
    if !is_root() {
        return;
    }
    let script = r#"
        mount -t tmpfs -o size="$SIZE",mode=755 none "$2"
        ls -lR --time-style=+ "$2" > "$2.before"
        "$1" --root "$2" install --yes > "$2.out" 2> "$2.err" && code=0 || code=$?
        echo "first $code"
        grep -c '^error: ' "$2.err" || true
        tail -n 1 "$2.err"
        find "$2" -name '.*.camcops-provision' | sed 's/^/unfinished /'
        mount -o remount,size=20m "$2"
        "$1" --root "$2" install --yes -q
        "$1" --root "$2" plan --exit-code
        "$1" --root "$2" uninstall --yes -q
        ls -lR --time-style=+ "$2" | cmp - "$2.before"
        echo "all is well"
    "#;
    for size in ["8k", "20k", "60k", "100k", "120k", "140k"] {
        let staged = Staged::empty(Who::Root);
        let script = script.replace("$SIZE", size);
        let Some(ran) = with_mounts(&script, &staged) else {
            return;
        };
        let ran = ran.exits(0).says("all is well");
        assert!(ran.out.starts_with("first 74\n1\nerror: "), "{size}: {ran}");
        assert!(!ran.out.contains("unfinished "), "{size}: {ran}");
    }
}

#[test]
fn a_read_only_tree_is_refused() {
    if is_root() {
        let staged = Staged::of(Who::Root, "debian");
        let script = r#"
            mount --bind "$2" "$2"
            mount -o remount,bind,ro "$2"
            "$1" --root "$2" install --yes
        "#;
        if let Some(ran) = with_mounts(script, &staged) {
            let ran = ran.exits(74).says("Read-only file system");
            assert_eq!(ran.err.lines().count(), 1, "{ran}");
        }
    }
    let staged = Staged::of(Who::Ordinary, "debian");
    staged.chmod("", 0o555);
    let before = staged.tree();
    let ran = staged.run(&["install"]).exits(77).says("Permission denied");
    assert_eq!(ran.err.lines().count(), 1, "{ran}");
    before.assert_same(&staged.tree(), "a refused run");
    staged.run(&["plan", "--exit-code"]).exits(2);
}

#[test]
fn a_file_that_may_not_grow_stops_a_run_and_the_next_one_continues() {
    let start = Staged::of(anybody(), "debian");
    let (first, whole) = (start.tree().untimed(), installed(&start).tree().masked());
    for limit in [60, 300, 1000, 3000, 9000] {
        let staged = start.copy();
        let mut command = Command::new("env");
        let program = staged.command(&["install"]);
        command
            .args(["--ignore-signal=XFSZ", "prlimit", &format!("--fsize={limit}")])
            .arg(env!("CARGO_BIN_EXE_camcops-provision"))
            .args(program.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let ran = Ran::of(command).exits(74).says("File too large");
        assert_eq!(ran.err.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{ran}");
        let undone = staged.copy();
        undone.run(&["uninstall"]).exits(0);
        first.assert_same(&undone.tree().untimed(), "uninstall");
        staged.run(&["install"]).exits(0);
        whole.assert_same(&staged.tree().masked(), "install");
    }
}

#[test]
fn the_journal_is_for_its_owner_alone() {
    let staged = installed(&lived_in(anybody()));
    let home = staged.at(HOME);
    assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o7777, 0o700);
    for (path, entry) in staged.tree().0 {
        if path.starts_with(&format!("/{HOME}/")) {
            assert_eq!(entry.mode & 0o077, 0, "{path}");
            assert_eq!(entry.uid, fs::metadata(&home).unwrap().uid(), "{path}");
        }
    }
}
