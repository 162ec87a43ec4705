//! A small Debian machine for tests: a root of its own, processes and a network of its own, and nothing of it on the
//! host afterwards.
//!
//! The root is made once per list of packages and kept in a cache; each machine is an overlay on it. Everything of a
//! machine lives in its namespaces, and these live as long as the pipe to its first process: when the test ends, however
//! it ends, the kernel closes the pipe, and processes, mounts and network are gone.

// Each test uses its own part of this.
#![allow(dead_code)]

pub mod booted;
pub mod browser;
pub mod certificates;
pub mod hostile;
pub mod installed;
#[path = "../../common/pages.rs"]
pub mod pages;
pub mod sandbox;
pub mod servers;
pub mod site;
pub mod tablet;
#[path = "../../common/tier.rs"]
pub mod tier;
pub mod twin;
pub mod watch;
pub mod wheelhouse;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tier::leave_out;

/// What this program itself needs of the host.
const NEEDED: [&str; 5] = ["mmdebstrap", "unshare", "nsenter", "pivot_root", "ip"];

/// Outside of the machine: runs it, then clears up. A second way to the end is that the test itself dies.
const KEEPER: &str = r#"
layers=$1 home=$2 tool=$3 wheelhouse=$4
unshare --mount --propagation private --net --ipc --uts --pid --fork --kill-child \
    bash -euc "$FIRST_PROCESS" first "$layers" "$home" "$tool" "$wheelhouse"
rm -rf "$home"
"#;

/// The first process of the machine: builds it, says its number, and stays until nobody holds the pipe any more.
const FIRST_PROCESS: &str = r#"
layers=$1 home=$2 tool=$3 root=$2/root
mkdir "$home/upper" "$home/work" "$root"
mount -t overlay machine -o "lowerdir=$layers,upperdir=$home/upper,workdir=$home/work" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t tmpfs -o mode=755 dev "$root/dev"
mkdir -m 1777 "$root/dev/shm" "$root/run/lock"
for node in null zero full random urandom; do
    : > "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
ln -s /proc/self/fd "$root/dev/fd"
: > "$root/usr/bin/camcops-provision"
mount --bind "$tool" "$root/usr/bin/camcops-provision"
if [ -n "$4" ]; then
    mkdir "$root/srv/wheelhouse"
    mount --bind -o ro "$4" "$root/srv/wheelhouse"
fi
echo machine > "$root/etc/hostname"
echo '127.0.0.1 localhost machine' > "$root/etc/hosts"
: > "$root/etc/resolv.conf"
hostname machine
ip link set lo up
read -r number _ < /proc/self/stat
cd "$root"
mkdir host
pivot_root . host
# Only now, when nothing of the host can be seen any more, may anybody enter.
exec chroot . bash -euc 'umount -l /host; rmdir /host; echo "$1"; while read -r _; do :; done' first "$number"
"#;

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    keeper: Child,
    /// The first process, as the host numbers it.
    first: u32,
    /// What it stands on stays as long as it runs.
    _lease: Option<Flock<File>>,
}

impl Machine {
    /// Starts one with these packages; none where this is not possible, and the test is left out.
    pub fn start(packages: &[&str]) -> Option<Machine> {
        Machine::of("bookworm", packages)
    }

    /// The same with another release of Debian.
    pub fn of(release: &str, packages: &[&str]) -> Option<Machine> {
        possible().then(|| Machine::on(&[base(release, packages)], Path::new(""), None))
    }

    /// One where the release that an install has built is in its place already, and the files of CamCOPS in
    /// /srv/wheelhouse: for what is not about building one.
    pub fn built(packages: &[&str]) -> Option<Machine> {
        possible().then(|| {
            let (release, lease) = installed::built();
            let layers = [release, base("bookworm", packages)];
            Machine::on(&layers, &wheelhouse::kept(), Some(lease))
        })
    }

    /// What such a machine stands on. Nobody writes to it.
    pub fn base(packages: &[&str]) -> Option<PathBuf> {
        possible().then(|| base("bookworm", packages))
    }

    /// One without systemd, bare but for the archives of what `install` needs, and the files of CamCOPS in
    /// /srv/wheelhouse.
    pub fn bare() -> Option<Machine> {
        possible().then(|| {
            let ground = installed::bare_ground();
            Machine::on(&ground.layers, &ground.wheelhouse.unwrap(), None)
        })
    }

    /// The same with the release in its place already.
    pub fn bare_but_release() -> Option<Machine> {
        possible().then(|| {
            let (release, lease) = installed::built();
            let mut ground = installed::bare_ground();
            ground.layers.insert(0, release);
            Machine::on(&ground.layers, &ground.wheelhouse.unwrap(), Some(lease))
        })
    }

    fn on(layers: &[PathBuf], wheelhouse: &Path, lease: Option<Flock<File>>) -> Machine {
        let home = fresh_home();
        let layers: Vec<&str> = layers.iter().map(|layer| layer.to_str().unwrap()).collect();
        let mut keeper = Command::new("bash")
            .args(["-c", KEEPER, "keeper"])
            .arg(layers.join(":"))
            .arg(&home)
            .arg(env!("CARGO_BIN_EXE_camcops-provision"))
            .arg(wheelhouse)
            .env("FIRST_PROCESS", FIRST_PROCESS)
            // An interrupt from the keyboard is for the test; this ends when the test does.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let first = line.trim().parse().expect("the machine did not start");
        let machine = Machine { keeper, first, _lease: lease };
        let which = |root: &Path| {
            let root = fs::metadata(root).unwrap();
            (root.dev(), root.ino())
        };
        // Everything else here relies on this.
        assert_ne!(which(&machine.path("/")), which(Path::new("/")));
        machine
    }

    /// A path inside, as the host sees it.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.first))
    }

    /// Lays a cable to another machine; these are the addresses of its ends. It goes with the machines.
    pub fn connect(&self, own: &str, other: &Machine, theirs: &str) {
        let ends = [(self, own, other), (other, theirs, self)];
        let name = |to: &Machine| format!("to{}", to.first);
        let [mine, far] = ends.map(|(at, _, to)| [name(to), "netns".into(), at.first.to_string()]);
        let ip = |command: &mut Command, arguments: &[&str]| {
            let done = command.args(arguments).status().unwrap();
            assert!(done.success(), "{command:?}");
        };
        ip(Command::new("ip").args(["link", "add"]).args(mine).args(["type", "veth", "peer", "name"]).args(far), &[]);
        for (at, address, to) in ends {
            let inside = || {
                let mut command = Command::new("nsenter");
                command.args(["--net", "--target", &at.first.to_string(), "ip"]);
                command
            };
            let address = format!("{address}/24");
            ip(&mut inside(), &["address", "add", &address, "dev", &name(to)]);
            ip(&mut inside(), &["link", "set", &name(to), "up"]);
        }
    }

    /// Writes a file inside, and the directories that it needs.
    pub fn write(&self, inside: &str, text: &str, mode: u32) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A program inside, as root, with an environment of its own.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--mount", "--net", "--ipc", "--uts", "--pid"])
            .args(["--target", &self.first.to_string(), "--", program])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null());
        command
    }

    /// Runs a shell script inside and gives its output; it must succeed.
    pub fn run(&self, script: &str) -> String {
        let output = self.command("bash").args(["-euc", script]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}\n{text}{complaint}");
        text
    }

    /// Starts a daemon inside, as an account, with its output in /var/log/NAME.out.
    pub fn daemon(&self, name: &str, account: &str, command: &str) {
        self.run(&format!(
            "cd /; setsid setpriv --reuid={account} --regid={account} --init-groups {command} > /var/log/{name}.out 2>&1 < /dev/null &"
        ));
    }

    /// Runs a script inside until it succeeds.
    pub fn wait_for(&self, what: &str, script: &str) {
        let start = Instant::now();
        loop {
            let output: Output = self.command("bash").args(["-c", script]).output().unwrap();
            if output.status.success() {
                return;
            }
            if start.elapsed() > Duration::from_secs(60) {
                let logs = self.run("tail -n 30 /var/log/*.out 2>&1 || true");
                panic!("{what} did not come: {}\n{logs}", String::from_utf8_lossy(&output.stderr));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Without its pipe the first process ends, and all that is in the machine with it.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Kills what a command of a machine has started: that stands behind a process of nsenter's, which ends with it.
pub fn kill(command: &mut Child) {
    let number = command.id();
    let inside = fs::read_to_string(format!("/proc/{number}/task/{number}/children")).unwrap();
    let inside = inside.trim().parse().unwrap();
    signal::kill(Pid::from_raw(inside), Signal::SIGKILL).unwrap();
    command.wait().unwrap();
}

/// Whether machines can be made here; where not, the test is left out.
fn possible() -> bool {
    let Some(why) = why_not(&NEEDED) else {
        return true;
    };
    leave_out(&format!("no machine: {why}"));
    false
}

fn why_not(needed: &[&str]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("it needs root".into());
    }
    let missing: Vec<&str> = needed.iter().copied().filter(|program| which::which(program).is_err()).collect();
    (!missing.is_empty()).then(|| format!("{} not installed", missing.join(", ")))
}

fn cache() -> PathBuf {
    std::env::var_os("CAMCOPS_TEST_CACHE").map_or_else(|| "/var/cache/camcops-provision-tests".into(), PathBuf::from)
}

/// FNV-1a: the same in every version of the compiler.
fn key(list: &str) -> String {
    let key =
        list.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |key, byte| (key ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{key:016x}")
}

/// What is kept in the cache under a name that says what it is made of; made where it is not there yet. Nobody writes to
/// it afterwards.
fn kept(name: &str, what: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let cache = cache();
    fs::create_dir_all(&cache).unwrap();
    let home = cache.join(name);
    let lock = File::create(home.with_extension("lock")).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    if !home.exists() {
        eprintln!("{what}: once, a few minutes");
        let unfinished = home.with_extension("unfinished");
        let _ = fs::remove_dir_all(&unfinished);
        make(&unfinished);
        fs::rename(&unfinished, &home).unwrap();
    }
    home
}

/// Runs a program of the host, which must succeed.
fn done(command: &mut Command) {
    let status = command.stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// The root with these packages.
fn base(release: &str, packages: &[&str]) -> PathBuf {
    let mut packages = packages.to_vec();
    packages.sort_unstable();
    let list = packages.join(",");
    let name = format!("{release}-{}", key(&list));
    kept(&name, &format!("making a root of {release} with {list}"), |root| {
        let mut make = debootstrap(release, root);
        // The newest release is never more than a snapshot.
        make.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
        done(make.args(["--variant=minbase", "--include", &list]));
    })
}

/// The program that makes a root of a release of Debian or Ubuntu.
fn debootstrap(release: &str, root: &Path) -> Command {
    const UBUNTU: &str = "http://archive.ubuntu.com/ubuntu";
    let mut make = Command::new("mmdebstrap");
    make.arg("--quiet").stdout(Stdio::null());
    make.arg(release).arg(root);
    if release == "trixie" {
        // Its other archives may have expired: it is then refused to look into them, and there is nothing in them.
        make.arg("deb http://deb.debian.org/debian trixie main");
    }
    if ["jammy", "noble", "resolute"].contains(&release) {
        let keys = kept("ubuntu-keyring-2023.11.28.1", "fetching the keys of Ubuntu", |keys| {
            let package = keys.with_extension("deb");
            done(
                Command::new("/usr/lib/apt/apt-helper")
                    .arg("download-file")
                    .arg(format!("{UBUNTU}/pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb"))
                    .arg(&package)
                    .arg("SHA256:36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8")
                    .stdout(Stdio::null()),
            );
            done(Command::new("dpkg-deb").arg("--extract").args([&package, keys]));
            fs::remove_file(package).unwrap();
        });
        make.arg("--keyring").arg(keys.join("usr/share/keyrings/ubuntu-archive-keyring.gpg"));
        for pocket in ["", "-updates", "-security"] {
            make.arg(format!("deb {UBUNTU} {release}{pocket} main universe"));
        }
    }
    make
}

/// A directory for what a machine changes: in memory where there is plenty, as nothing of it is kept.
fn fresh_home() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let place = match available_mib() >= PLENTY_MIB {
        true => PathBuf::from("/dev/shm"),
        false => cache(),
    };
    let home = place.join(format!("camcops-machine-{}-{next}", std::process::id()));
    let _ = fs::remove_dir_all(&home);
    fs::create_dir(&home).unwrap();
    home
}

/// Enough for two machines with CamCOPS in memory, and for all that runs on them.
const PLENTY_MIB: u64 = 14 << 10;

fn available_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let kib = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.strip_suffix("kB"));
    kib.map_or(0, |kib| kib.trim().parse::<u64>().unwrap() / 1024)
}
