//! A Debian that has booted with systemd, with a network of its own that leads nowhere: what is to be installed is
//! already in the cache of apt.

use super::tier::leave_out;
use super::{fresh_home, why_not};
use nix::fcntl::Flock;
use nix::sched::{CloneFlags, setns};
use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Until everything that starts at boot is there, on a machine that has other things to do too.
const LONGEST_START: Duration = Duration::from_secs(300);

/// Everything has been started, or has failed.
const IS_UP: &str = "case $(systemctl is-system-running) in running | degraded) ;; *) exit 1 ;; esac";

/// Stays until the test ends, however it does; then all of the machine goes with its namespaces.
const KEEPER: &str = include_str!("booted.sh");

/// A running machine.
#[derive(Debug)]
pub struct Booted {
    keeper: Child,
    home: PathBuf,
    name: String,
    /// What it stands on stays as long as it runs.
    _lease: Option<Flock<File>>,
}

/// What a machine stands on.
#[derive(Debug, Default)]
pub struct Ground {
    /// Directories that are its disk as long as it writes nothing, the topmost first.
    pub layers: Vec<PathBuf>,
    /// What is to be seen as /srv/wheelhouse.
    pub wheelhouse: Option<PathBuf>,
    /// Keeps the layers from being removed.
    pub lease: Option<Flock<File>>,
}

/// Whether machines can boot here; where not, the test is left out.
pub fn possible() -> bool {
    let Some(why) = why_not(&["mmdebstrap", "systemd-nspawn", "script", "unshare"]) else {
        return true;
    };
    leave_out(&format!("no machine: {why}"));
    false
}

impl Booted {
    /// Starts one of a release of Debian, for which these packages can be installed; none where this is not possible.
    pub fn start(release: &str, packages: &[&str]) -> Option<Booted> {
        possible().then(|| Booted::on(Ground { layers: vec![base(release, packages)], ..Ground::default() }))
    }

    /// Starts one.
    pub fn on(ground: Ground) -> Booted {
        let home = fresh_home();
        let layers: Vec<&str> = ground.layers.iter().map(|layer| layer.to_str().unwrap()).collect();
        let name = home.file_name().unwrap().to_str().unwrap().to_owned();
        let keeper = Command::new("bash")
            .args(["-c", KEEPER, "keeper"])
            .arg(layers.join(":"))
            .arg(&home)
            .args([env!("CARGO_BIN_EXE_camcops-provision"), &name])
            .arg(ground.wheelhouse.unwrap_or_default())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let machine = Booted { keeper, home, name, _lease: ground.lease };
        machine.wait_until_up(0, IS_UP);
        machine
    }

    /// Shuts it down in good order and puts what it has on its disk, beyond what it stood on, somewhere.
    pub fn shut_down_into(mut self, layer: &Path) {
        let start = Instant::now();
        self.command("systemctl").arg("poweroff").output().unwrap();
        while self.first().is_some() {
            assert!(start.elapsed() < LONGEST_START, "it does not go down");
            std::thread::sleep(Duration::from_millis(100));
        }
        fs::write(self.home.join("keep"), layer.to_str().unwrap()).unwrap();
        self.let_go();
        assert!(layer.exists());
    }

    /// A connection to a port of its loopback.
    pub fn connect(&self, port: u16) -> std::io::Result<TcpStream> {
        let network = File::open(format!("/proc/{}/ns/net", self.first().unwrap()))?;
        // Only this thread goes into the machine, and ends there; the connection stays what it is.
        let there = std::thread::spawn(move || {
            setns(network, CloneFlags::CLONE_NEWNET)?;
            TcpStream::connect(("127.0.0.1", port))
        });
        there.join().unwrap()
    }

    /// Boots it again, with whatever it has on its disk.
    pub fn reboot(&self) {
        self.reboot_until(IS_UP);
    }

    /// The same where not everything comes up: until a script succeeds.
    pub fn reboot_until(&self, script: &str) {
        let before = self.first().unwrap();
        self.command("systemctl").arg("reboot").output().unwrap();
        self.wait_until_up(before, script);
    }

    /// A path inside, as the host sees it.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.first().unwrap()))
    }

    /// A program inside, as root, with an environment of its own.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--all", "--target", &self.first().unwrap_or(0).to_string()])
            .args(["--", program])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", "/root")
            .stdin(Stdio::null());
        command
    }

    /// Runs a shell script inside; gives its exit code, its output and its complaint.
    pub fn tried(&self, script: &str) -> (i32, String, String) {
        let output: Output = self.command("bash").args(["-c", script]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        (code, text(&output.stdout), text(&output.stderr))
    }

    /// Runs a shell script inside and gives its output; it must succeed.
    pub fn run(&self, script: &str) -> String {
        let (code, output, complaint) = self.tried(&format!("set -eu\n{script}"));
        assert_eq!(code, 0, "{script}\n{output}{complaint}");
        output
    }

    /// The first process inside, as the host numbers it: the child of the process that made the machine.
    pub fn first(&self) -> Option<u32> {
        let flag = format!("--machine={}", self.name);
        let processes = fs::read_dir("/proc").ok()?;
        processes.flatten().find_map(|entry| {
            let path = entry.path();
            let command = fs::read(path.join("cmdline")).ok()?;
            let mut words = command.split(|byte| *byte == 0);
            let nspawn = words.next()?.ends_with(b"systemd-nspawn");
            (nspawn && words.any(|word| word == flag.as_bytes())).then(|| child_of(&path))?
        })
    }

    fn let_go(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }

    fn wait_until_up(&self, unlike: u32, script: &str) {
        let start = Instant::now();
        loop {
            if self.first().is_some_and(|first| first != unlike) && self.tried(script).0 == 0 {
                return;
            }
            if start.elapsed() > LONGEST_START {
                let console = fs::read(self.home.join("console")).unwrap_or_default();
                panic!("no machine: {}", String::from_utf8_lossy(&console));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        self.let_go();
    }
}

fn child_of(process: &Path) -> Option<u32> {
    let number = process.file_name()?.to_str()?;
    let children = fs::read_to_string(process.join("task").join(number).join("children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// A root that boots, with the archives of these packages in apt's cache; made where it is not there yet.
pub fn base(release: &str, packages: &[&str]) -> PathBuf {
    const SYSTEM: &str = "systemd,systemd-sysv,dbus,iproute2,procps";
    let list = packages.join(" ");
    let name = format!("{release}-boots-{}", super::key(&format!("{SYSTEM} {list}")));
    super::kept(&name, &format!("making a root of {release} for {list}"), |root| {
        super::done(
            super::debootstrap(release, root)
                .args(["--variant=apt", "--skip=cleanup/apt", "--include", SYSTEM])
                // The newest release is never more than a snapshot.
                .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
                .arg(format!("--customize-hook=chroot \"$1\" apt-get install --quiet --yes --download-only --no-install-recommends {list}"))
                .arg("--customize-hook=echo machine > \"$1/etc/hostname\"; echo '127.0.0.1 localhost machine' > \"$1/etc/hosts\"; : > \"$1/etc/resolv.conf\"; ln -sf /usr/share/zoneinfo/Etc/UTC \"$1/etc/localtime\""),
        );
    })
}

/// The archives of packages, and of what they need, that the bare machine does not have in its cache.
pub fn archives(packages: &[&str]) -> PathBuf {
    let ground = super::installed::bare_ground().layers.remove(0);
    let list = packages.join(" ");
    super::kept(
        &format!("bookworm-archives-{}", super::key(&list)),
        &format!("fetching the archives of {list}"),
        |home| {
            fs::create_dir_all(home.join("work")).unwrap();
            super::done(
                Command::new("unshare")
                    .args(["--mount", "--propagation", "private"])
                    .args(["bash", "-euc", FETCH, "fetch", &list])
                    .args([&ground, home])
                    .stdout(Stdio::null()),
            );
        },
    )
}

/// A layer for a machine that stands on this ground and has these packages: its sources are those of Debian 13, and apt has
/// what an upgrade to that fetches, and these others.
pub fn newer_archives(ground: &Path, packages: &[&str], others: &[&str]) -> PathBuf {
    let [packages, others] = [packages, others].map(|list| list.join(" "));
    let name = ground.file_name().unwrap().to_str().unwrap();
    super::kept(
        &format!("trixie-upgrade-{}", super::key(&format!("{name} {packages} {others}"))),
        "fetching what an upgrade to Debian 13 takes",
        |home| {
            fs::create_dir_all(home.join("work")).unwrap();
            super::done(
                Command::new("unshare")
                    .args(["--mount", "--propagation", "private"])
                    .args(["bash", "-euc", FETCH_UPGRADE, "fetch", &packages, &others])
                    .args([ground, home])
                    .stdout(Stdio::null()),
            );
        },
    )
}

const FETCH_UPGRADE: &str = r#"
packages=$1 others=$2 ground=$3 home=$4 root=$4/work/root
export DEBIAN_FRONTEND=noninteractive
mkdir "$home/work/upper" "$home/work/work" "$root"
mount -t overlay fetch -o "lowerdir=$ground,upperdir=$home/work/upper,workdir=$home/work/work" "$root"
mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
apt() { chroot "$root" apt-get --quiet --yes --option 'Acquire::Check-Valid-Until=false' "$@"; }
apt install --no-install-recommends --no-download $packages
echo 'deb http://deb.debian.org/debian trixie main' > "$root/etc/apt/sources.list"
apt update
apt full-upgrade --download-only
apt install --download-only --no-install-recommends $others
umount "$root/dev" "$root/proc" "$root/etc/resolv.conf" "$root"
mkdir -p "$home/var/cache/apt" "$home/var/lib/apt" "$home/etc/apt"
mv "$home/work/upper/var/cache/apt/archives" "$home/var/cache/apt"
mv "$home/work/upper/var/lib/apt/lists" "$home/var/lib/apt"
mv "$home/work/upper/etc/apt/sources.list" "$home/etc/apt"
rm -r "$home/work"
"#;

const FETCH: &str = r#"
list=$1 ground=$2 home=$3
mkdir "$home/work/upper" "$home/work/work" "$home/work/root"
mount -t overlay fetch -o "lowerdir=$ground,upperdir=$home/work/upper,workdir=$home/work/work" "$home/work/root"
mount --bind /etc/resolv.conf "$home/work/root/etc/resolv.conf"
chroot "$home/work/root" apt-get install --quiet --yes --download-only --no-install-recommends $list
umount "$home/work/root/etc/resolv.conf" "$home/work/root"
mv "$home"/work/upper/var/cache/apt/archives/*.deb "$home"
rm -r "$home/work"
"#;
