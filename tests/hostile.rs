//! Trees in which somebody without privileges lies in wait while root installs: whatever stands at the places that such
//! an account may write to, nothing outside of them is touched, nothing hangs, and what is refused is named.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod common;

use camcops_provision::base::error::Exit;
use camcops_provision::host::Host;
use common::tier::{is_thorough, one_in};
use common::{HOME, Ran, Staged, Tree, Who, each, give_to, is_root};
use nix::sys::stat::Mode;
use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WEB: u32 = 1033;
const STRANGER: u32 = 64_242;
/// What the racing process finds its targets in.
const TARGETS: &str = "CAMCOPS_PROVISION_TEST_TARGETS";

/// A tree with the directories of a real machine, and files beside and in it that nobody may touch.
fn machine(account: &str) -> Staged {
    let staged = Staged::of(Who::Root, "debian").with_accounts().set(&[&format!("account.user={account}")]);
    for directory in ["run/lock", "var/tmp", "var/cache", "var/lib", "srv"] {
        staged.directory(directory);
    }
    staged.chmod("run/lock", 0o1777);
    staged.chmod("var/tmp", 0o1777);
    symlink("/run/lock", staged.at("var/lock")).unwrap();
    staged.write("etc/shadow", "root:*:::::::\n");
    staged.chmod("etc/shadow", 0o640);
    outside(&staged);
    staged
}

/// What the traps lead to.
fn outside(staged: &Staged) {
    let outside = staged.beside("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(outside.join("empty")).unwrap();
    fs::write(outside.join("secret"), "bytes\n").unwrap();
    fs::set_permissions(outside.join("secret"), Permissions::from_mode(0o600)).unwrap();
}

/// What must be the same afterwards.
fn guarded(staged: &Staged) -> [Tree; 4] {
    [
        Tree::of(&staged.beside("outside")),
        Tree::of(&staged.at("etc/shadow")),
        Tree::of(&staged.at("etc/passwd")),
        Tree::of(&staged.at("etc/group")),
    ]
}

#[track_caller]
fn assert_untouched(before: &[Tree; 4], staged: &Staged, what: &str) {
    for (before, now) in before.iter().zip(guarded(staged)) {
        before.assert_same(&now, what);
    }
}

/// The directories of the file plan that an unprivileged account can reach: those of the service, and those that stand
/// where others may write. With the account that owns what they stand in, if that is the service's.
fn exposed(staged: &Staged) -> Vec<Exposed> {
    let installed = staged.copy();
    installed.run(&["install"]).exits(0);
    let paths = installed.run(&["paths", "--json"]).exits(0).json();
    let rows = paths["paths"].as_array().unwrap();
    let mut found = Vec::new();
    for row in rows.iter().filter(|row| row["what"] == "directory") {
        let path = row["path"].as_str().unwrap();
        let (parent, _) = path.rsplit_once('/').unwrap();
        // A link to an absolute path is one inside of the tree.
        let parent = parent.replace("/var/lock", "/run/lock");
        let (Ok(parent), Ok(own)) = (
            fs::metadata(installed.at(&parent)),
            fs::symlink_metadata(installed.at(&path.replace("/var/lock/", "/run/lock/"))),
        ) else {
            continue;
        };
        let open = parent.mode() & 0o022 != 0;
        // Root makes nothing by name where the service could put something else in its way, and what stands where
        // everybody can write is root's.
        assert_eq!(parent.uid(), 0, "{path}");
        assert!(!open || (own.uid() == 0 && parent.mode() & 0o1000 != 0), "{path}");
        if open || own.uid() != 0 {
            found.push(Exposed {
                path: path.replace("/var/lock/", "/run/lock/"),
                owner: own.uid(),
                mode: own.mode() & 0o7777,
                open,
            });
        }
    }
    assert_eq!(found.iter().filter(|e| e.open).count(), 2, "{found:?}");
    found
}

#[derive(Debug, Clone)]
struct Exposed {
    /// Where it really is.
    path: String,
    owner: u32,
    mode: u32,
    /// What it stands in can be written to by others.
    open: bool,
}

impl Exposed {
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    fn unfinished(&self) -> String {
        let (parent, name) = self.path.rsplit_once('/').unwrap();
        format!("{parent}/.{name}.camcops-provision")
    }
}

/// What somebody puts in the way.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trap {
    LinkTo(&'static str),
    LinkToShadow,
    Loop,
    HardLink,
    Pipe,
    Socket,
    File,
    Directory,
    FullDirectory,
}

const TRAPS: &[Trap] = &[
    Trap::LinkTo("outside"),
    Trap::LinkTo("outside/empty"),
    Trap::LinkTo("outside/secret"),
    Trap::LinkTo("outside/dangling"),
    Trap::LinkTo("../../../outside"),
    Trap::LinkToShadow,
    Trap::Loop,
    Trap::HardLink,
    Trap::Pipe,
    Trap::Socket,
    Trap::File,
    Trap::Directory,
    Trap::FullDirectory,
];

impl Trap {
    fn put(self, staged: &Staged, path: &str, who: u32) {
        let at = staged.at(path);
        let outside = staged.beside("outside");
        match self {
            Trap::LinkTo(target) if target.starts_with("..") => symlink(target, &at).unwrap(),
            Trap::LinkTo(target) => symlink(staged.beside(target), &at).unwrap(),
            // Not the bare path: a program that is fooled must not reach this machine's own.
            Trap::LinkToShadow => symlink(staged.at("etc/shadow"), &at).unwrap(),
            Trap::Loop => symlink(at.file_name().unwrap(), &at).unwrap(),
            Trap::HardLink => return fs::hard_link(outside.join("secret"), &at).unwrap(),
            Trap::Pipe => nix::unistd::mkfifo(&at, Mode::from_bits_truncate(0o666)).unwrap(),
            Trap::Socket => drop(bound(&at)),
            Trap::File => fs::write(&at, "mine\n").unwrap(),
            Trap::Directory => fs::create_dir(&at).unwrap(),
            Trap::FullDirectory => {
                fs::create_dir(&at).unwrap();
                for name in ["matplotlib", ".matplotlib.camcops-provision", "x"] {
                    symlink(&outside, at.join(name)).unwrap();
                    give_to(&at.join(name), who, who);
                }
                fs::hard_link(outside.join("secret"), at.join("hard")).unwrap();
            }
        }
        give_to(&at, who, who);
    }
}

/// A socket, by a name that is short enough.
fn bound(path: &Path) -> UnixListener {
    let parent = File::open(path.parent().unwrap()).unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", parent.as_raw_fd())).unwrap()
}

/// Removes whatever stands there, itself and not what it points to.
fn clear(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

#[track_caller]
fn works_or_names(ran: Ran, name: &str) -> bool {
    if ran.status.success() {
        return true;
    }
    ran.exits(73).says(name);
    false
}

#[derive(Debug)]
struct Case<'a> {
    exposed: &'a Exposed,
    trap: Trap,
    who: u32,
    beside: bool,
}

impl Case<'_> {
    fn all(exposed: &[Exposed]) -> Vec<Case<'_>> {
        let mut cases = Vec::new();
        for exposed in exposed.iter().filter(|exposed| exposed.open) {
            for who in [WEB, STRANGER] {
                for &trap in TRAPS {
                    for beside in [false, true] {
                        cases.push(Case { exposed, trap, who, beside });
                    }
                }
            }
        }
        cases
    }

    fn at(&self) -> String {
        match self.beside {
            true => self.exposed.unfinished(),
            false => self.exposed.path.clone(),
        }
    }

    fn set(&self, staged: &Staged) {
        let at = self.at();
        clear(&staged.at(&at));
        self.trap.put(staged, &at, self.who);
    }

    fn unset(&self, staged: &Staged) {
        clear(&staged.at(&self.at()));
    }

    fn right(&self, staged: &Staged) {
        let found = fs::symlink_metadata(staged.at(&self.exposed.path)).unwrap();
        assert!(found.is_dir());
        assert_eq!(found.uid(), self.exposed.owner);
        assert_eq!(found.mode() & 0o7777, self.exposed.mode);
        // What somebody else put into it is not trusted with it.
        for entry in fs::read_dir(staged.at(&self.exposed.path)).unwrap() {
            let entry = entry.unwrap();
            assert!(entry.metadata().unwrap().is_dir(), "{entry:?}");
        }
    }
}

fn trapped(account: &str) {
    if !is_root() {
        return;
    }
    let bare = machine(account);
    let exposed = exposed(&bare);
    let installed = bare.copy();
    installed.run(&["install"]).exits(0);
    each(&one_in(5).of(Case::all(&exposed)), |case| {
        for (tree, first) in [(&bare, true), (&installed, false)] {
            let staged = tree.copy();
            outside(&staged);
            let before = guarded(&staged);
            case.set(&staged);
            // Somebody's own directory may be taken for drift: mode and owner are then set again.
            let name = case.exposed.name();
            let worked = works_or_names(staged.run(&["install"]), name);
            assert_untouched(&before, &staged, "install");
            let strange = case.who == STRANGER && !case.beside;
            assert!(!(worked && strange), "a stranger's was taken for ours");
            if worked {
                case.right(&staged);
            }
            if !first {
                works_or_names(staged.run(&["uninstall"]), name);
                assert_untouched(&before, &staged, "uninstall");
            }
            case.unset(&staged);
            staged.run(&["install"]).exits(0);
            case.right(&staged);
            assert_untouched(&before, &staged, "install without the trap");
        }
    });
}

#[test]
fn traps_that_stand_there_before_with_the_web_account() {
    trapped("auto");
}

#[test]
fn traps_that_stand_there_before_with_a_dedicated_account() {
    trapped("camcops");
}

#[test]
fn what_a_service_puts_into_its_own_directories_is_left_alone() {
    if !is_root() {
        return;
    }
    let staged = machine("auto");
    let exposed: Vec<Exposed> = exposed(&staged).into_iter().filter(|exposed| exposed.owner != 0).collect();
    staged.run(&["install"]).exits(0);
    let before = guarded(&staged);
    for exposed in &exposed {
        for (number, trap) in TRAPS.iter().enumerate() {
            trap.put(&staged, &format!("{}/{number}", exposed.path), exposed.owner);
        }
        // Its owner can do this, and the next run mends it.
        staged.chmod(&exposed.path, 0o777);
    }
    staged.run(&["install"]).exits(0);
    assert_untouched(&before, &staged, "repair");
    for exposed in &exposed {
        let mode = fs::metadata(staged.at(&exposed.path)).unwrap().mode();
        assert_eq!(mode & 0o007, 0, "{}", exposed.path);
    }
    staged.run(&["uninstall"]).exits(0);
    assert_untouched(&before, &staged, "uninstall");
    for exposed in &exposed {
        assert!(staged.at(&exposed.path).join("0").is_symlink());
    }
}

/// As it was before: the account of the services owned what root and systemd make things in.
#[test]
fn what_an_account_left_in_a_directory_that_becomes_roots_is_not_trusted() {
    if !is_root() {
        return;
    }
    let staged = machine("auto");
    staged.run(&["install"]).exits(0);
    let before = guarded(&staged);
    let homes = ["run/camcops", "run/lock/camcops", "var/tmp/camcops"];
    for home in homes {
        let path = staged.at(home);
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        give_to(&path, WEB, WEB);
        Trap::LinkToShadow.put(&staged, &format!("{home}/link"), WEB);
        Trap::File.put(&staged, &format!("{home}/file"), WEB);
        Trap::HardLink.put(&staged, &format!("{home}/hard"), WEB);
        symlink("/etc", path.join("roots")).unwrap();
    }
    staged.run(&["install"]).exits(0);
    assert_untouched(&before, &staged, "install");
    for home in homes {
        let found = fs::metadata(staged.at(home)).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o755), "{home}");
        let names: Vec<String> = fs::read_dir(staged.at(home))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(!names.contains(&"link".into()), "{home}: {names:?}");
        assert!(names.contains(&"roots".into()), "{home}: {names:?}");
        // Only where nothing but temporary things stand.
        for name in ["file", "hard"] {
            assert_eq!(names.contains(&name.into()), home == "run/camcops");
        }
    }
}

#[test]
fn a_hard_link_that_comes_after_the_look_is_not_given_away() {
    if !is_root() {
        return;
    }
    let staged = machine("auto");
    let before = guarded(&staged);
    Trap::HardLink.put(&staged, "var/tmp/camcops", WEB);
    // What a change of owner and mode meets when somebody was faster.
    let host = Host::staged(&staged.path()).unwrap();
    let refused = host.set("/var/tmp/camcops", Some((WEB, WEB)), Some(0o700));
    assert_eq!(Exit::of(&refused.unwrap_err()), Exit::CannotCreate);
    assert_untouched(&before, &staged, "set");
}

/// The other process: swaps what stands at its targets until it is killed.
#[test]
#[ignore = "started by the races"]
fn swapper() {
    let Ok(targets) = std::env::var(TARGETS) else {
        return;
    };
    let begin = Instant::now();
    let mut targets = targets.split(':').map(PathBuf::from);
    let outside = targets.next().unwrap();
    let targets: Vec<PathBuf> = targets.collect();
    let mut round = 0_u32;
    while begin.elapsed() < Duration::from_secs(60) {
        round = round.wrapping_add(1);
        for target in &targets {
            let name = target.file_name().unwrap().to_string_lossy();
            let aside = target.with_file_name(format!("aside-{name}"));
            // Each of these may fail: the other side is at work as well.
            let _ = fs::rename(target, &aside);
            match round % 4 {
                0 => drop(symlink(&outside, target)),
                1 => drop(symlink(outside.join("empty"), target)),
                2 => drop(fs::write(target, "mine\n")),
                _ => drop(fs::create_dir(target)),
            }
            let _ = fs::remove_file(target);
            if round % 8 < 4 {
                let _ = fs::remove_dir(target);
                let _ = fs::rename(&aside, target);
            }
            let _ = fs::remove_dir_all(&aside);
            let _ = fs::remove_file(&aside);
        }
    }
}

/// Kills the process when the test ends, however it ends.
struct Swapper(Child);

impl Swapper {
    fn start(who: u32, outside: &Path, targets: &[PathBuf]) -> Swapper {
        let binary = File::open(std::env::current_exe().unwrap()).unwrap();
        let all: Vec<String> = std::iter::once(outside)
            .chain(targets.iter().map(PathBuf::as_path))
            .map(|path| path.display().to_string())
            .collect();
        let child = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
            .args(["--ignored", "--exact", "swapper"])
            .env_clear()
            .env(TARGETS, all.join(":"))
            .current_dir("/")
            .uid(who)
            .gid(who)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Swapper(child)
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn races() {
    if !is_root() {
        return;
    }
    let staged = machine("auto");
    let exposed: Vec<Exposed> = exposed(&staged).into_iter().filter(|e| e.open).collect();
    let before = guarded(&staged);
    let targets: Vec<PathBuf> = exposed.iter().flat_map(|e| [staged.at(&e.path), staged.at(&e.unfinished())]).collect();
    let outside = staged.beside("outside");
    let swappers = [WEB, STRANGER].map(|who| Swapper::start(who, &outside, &targets));
    let begin = Instant::now();
    let (mut rounds, mut disturbed) = (0, 0);
    let (least, most) = match is_thorough() {
        true => (100, 600),
        false => (12, 8),
    };
    while rounds < least || (rounds < 40 && begin.elapsed() < Duration::from_secs(most)) {
        for command in ["install", "install", "uninstall"] {
            let ran = staged.run(&[command]);
            let code = ran.status.code();
            assert!(matches!(code, Some(0 | 1 | 73 | 74)), "{ran}");
            disturbed += u32::from(code != Some(0));
            assert!(code == Some(0) || ran.said().contains("camcops"), "{ran}");
            assert_untouched(&before, &staged, command);
        }
        rounds += 1;
    }
    drop(swappers);
    assert!(disturbed > 0, "nobody was in the way");
    eprintln!("{disturbed} of {} runs were disturbed", rounds * 3);
    for target in &targets {
        clear(target);
    }
    staged.run(&["install"]).exits(0);
    assert_untouched(&before, &staged, "install after the races");
}

#[test]
fn a_journal_of_somebody_else_is_not_believed() {
    if !is_root() {
        return;
    }
    let bare = machine("auto");
    let installed = bare.copy();
    installed.run(&["install"]).exits(0);
    let journal = format!("{HOME}/camcops/journal");
    type Spoil<'a> = &'a (dyn Fn(&Staged) + Sync);
    let cases: &[(&str, &Staged, Spoil<'_>)] = &[
        ("a directory", &bare, &|staged| {
            give_to(&staged.directory(HOME), STRANGER, STRANGER);
        }),
        ("a link", &bare, &|staged| {
            symlink(staged.directory("var/tmp/mine"), staged.at(HOME)).unwrap();
            give_to(&staged.at(HOME), STRANGER, STRANGER);
        }),
        ("a pipe", &bare, &|staged| {
            Trap::Pipe.put(staged, HOME, STRANGER);
        }),
        ("a directory with a journal", &installed, &|staged| {
            give_to(&staged.at(HOME), STRANGER, STRANGER);
        }),
        ("a directory for all", &installed, &|staged| {
            staged.chmod(HOME, 0o777);
        }),
        ("a journal", &installed, &|staged| {
            give_to(&staged.at(&journal), STRANGER, STRANGER);
        }),
        ("a journal for all", &installed, &|staged| {
            staged.chmod(&journal, 0o666);
        }),
    ];
    for (what, tree, spoil) in cases {
        let staged = tree.copy();
        spoil(&staged);
        let before = staged.tree();
        for command in ["install", "uninstall", "plan", "status"] {
            let ran = staged.run(&[command]);
            assert_eq!(ran.status.code(), Some(73), "{what}: {ran}");
            ran.says(HOME);
            before.assert_same(&staged.tree(), what);
        }
    }
}

#[test]
fn a_lock_on_a_directory_that_all_can_read_does_not_hang_the_first_run() {
    if !is_root() {
        return;
    }
    let staged = machine("auto");
    // Whoever can read a directory can lock it, for as long as it likes.
    let base = File::open(staged.at("var/lib")).unwrap();
    base.lock().unwrap();
    staged.run(&["install"]).exits(75).says("var/lib");
    drop(base);
    staged.run(&["install"]).exits(0);
}
