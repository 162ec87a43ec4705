//! A machine on which the program has installed CamCOPS, by one command on a bare Debian. It is made once per program and
//! settings and kept in the cache; each test boots an overlay on it.

use super::booted::{self, Booted, Ground, base, possible};
use super::watch::Watch;
use super::{cache, done, key, wheelhouse};
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime};

/// The user who may do everything.
pub const SUPERUSER: &str = "admin";

/// The superuser's password: nothing of it occurs elsewhere.
pub const PASSWORD: &str = "Zx9-quiet-otter-61";

/// How the program is called on the bare machine; the password comes through standard input.
pub const COMMAND: [&str; 9] = [
    "camcops-provision",
    "install",
    "--yes",
    "--wheelhouse",
    "/srv/wheelhouse",
    "--superuser",
    SUPERUSER,
    "--superuser-password-file",
    "-",
];

/// What `install` fetches from Debian, and what the tests look with.
pub const PACKAGES: [&str; 14] = [
    "age",
    "apache2",
    "ca-certificates",
    "curl",
    "gcc",
    "libc6-dev",
    "libmagickwand-6.q16-6",
    "logrotate",
    "mariadb-server",
    "python3-dev",
    "python3-venv",
    "rabbitmq-server",
    "supervisor",
    "wkhtmltopdf",
];

/// As many stay in the cache, the last used ones: several trees may be under test.
const KEPT: usize = 2;

/// A machine with nothing but Debian, the program, and the files of CamCOPS in /srv/wheelhouse.
pub fn bare() -> Option<Booted> {
    possible().then(|| Booted::on(bare_ground()))
}

/// A layer with the release alone that an install has built.
pub fn built() -> (PathBuf, Flock<File>) {
    let (home, lease) = made("");
    (home.join("release"), lease)
}

/// A machine with CamCOPS, installed with the default settings, and what was seen while that was done.
pub fn installed() -> Option<(Booted, Value)> {
    installed_with("")
}

/// The same with other settings: the content of provision.toml.
pub fn installed_with(settings: &str) -> Option<(Booted, Value)> {
    possible().then(|| {
        let (home, lease) = made(settings);
        let mut ground = bare_ground();
        ground.layers.insert(0, home.join("disk"));
        ground.lease = Some(lease);
        let seen = fs::read(home.join("seen.json")).unwrap();
        (Booted::on(ground), serde_json::from_slice(&seen).unwrap())
    })
}

/// What a bare machine stands on.
pub fn bare_ground() -> Ground {
    Ground { layers: vec![base("bookworm", &PACKAGES)], wheelhouse: Some(wheelhouse::kept()), lease: None }
}

/// What a bare machine of another release stands on, with its Python and its package of ImageMagick's library; it can
/// install no wkhtmltopdf where that is not packaged.
pub fn bare_ground_of(release: &str, minor: u8, magick: &str) -> Ground {
    let [venv, headers] = ["venv", "dev"].map(|part| format!("python3.{minor}-{part}"));
    let mut packages = PACKAGES
        .map(|name| match name {
            "libmagickwand-6.q16-6" => magick,
            "python3-venv" => &venv,
            "python3-dev" => &headers,
            other => other,
        })
        .to_vec();
    if magick.contains("-7.") {
        packages.retain(|name| *name != "wkhtmltopdf");
        packages.extend(WEASYPRINT);
    }
    Ground { layers: vec![base(release, &packages)], wheelhouse: Some(wheelhouse::kept_for(minor)), lease: None }
}

/// A machine with CamCOPS on Debian 12 whose archives are those of Debian 13: all that an upgrade of the distribution
/// fetches, and the files of CamCOPS for its Python.
pub fn upgradable() -> Option<Booted> {
    possible().then(|| {
        let (home, lease) = made("");
        let mut ground = bare_ground();
        let ours = ["python3.13", "python3.13-dev", "python3.13-venv", "libmagickwand-7.q16-10"];
        let archives = booted::newer_archives(&ground.layers[0], &PACKAGES, &[&ours[..], &WEASYPRINT].concat());
        ground.layers.insert(0, home.join("disk"));
        ground.layers.insert(0, archives);
        ground.wheelhouse = Some(wheelhouse::kept_for(13));
        ground.lease = Some(lease);
        Booted::on(ground)
    })
}

/// What makes PDF files where wkhtmltopdf is not packaged.
pub const WEASYPRINT: [&str; 4] = ["fonts-dejavu-core", "libharfbuzz-subset0", "libpango-1.0-0", "libpangoft2-1.0-0"];

/// Makes it where it is not there yet; the lease keeps others from removing it.
fn made(settings: &str) -> (PathBuf, Flock<File>) {
    let ground = bare_ground();
    let kind = format!("installed-{}", key(settings));
    let lock = File::create(cache().join(format!("{kind}.lock"))).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let home = cache().join(format!("{kind}-{}", made_of(&ground)));
    if !home.exists() {
        eprintln!("installing CamCOPS on a bare machine: once per program, a few minutes");
        let unfinished = cache().join(format!("{kind}.unfinished"));
        let _ = fs::remove_dir_all(&unfinished);
        fs::create_dir(&unfinished).unwrap();
        make(ground, settings, &unfinished);
        fs::rename(&unfinished, &home).unwrap();
    }
    // Its time of change is that of its last use.
    let lease = File::create(home.join("lease")).unwrap();
    lease.set_modified(SystemTime::now()).unwrap();
    let lease = Flock::lock(lease, FlockArg::LockShared).unwrap();
    remove_older(&kind, &home);
    (home, lease)
}

/// The program, the base and the files of CamCOPS, and the text of what makes it.
fn made_of(ground: &Ground) -> String {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    digest.update(&fs::read(env!("CARGO_BIN_EXE_camcops-provision")).unwrap());
    digest.update(include_bytes!("installed.rs"));
    digest.update(include_bytes!("watch.rs"));
    for path in ground.layers.iter().chain(&ground.wheelhouse) {
        digest.update(path.file_name().unwrap().as_encoded_bytes());
    }
    let digest = digest.finish();
    digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn remove_older(kind: &str, current: &Path) {
    let mut all: Vec<(SystemTime, PathBuf)> = fs::read_dir(cache())
        .unwrap()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().into_string().unwrap_or_default();
            name.starts_with(&format!("{kind}-"))
        })
        .filter_map(|entry| {
            let lease = entry.path().join("lease");
            Some((lease.metadata().ok()?.modified().ok()?, entry.path()))
        })
        .filter(|(_, path)| path != current)
        .collect();
    all.sort();
    all.reverse();
    for (_, path) in all.iter().skip(KEPT - 1) {
        let lease = File::open(path.join("lease")).unwrap();
        if Flock::lock(lease, FlockArg::LockExclusiveNonblock).is_ok() {
            fs::remove_dir_all(path).unwrap();
        }
    }
}

/// Installs, and writes down what was seen.
fn make(ground: Ground, settings: &str, home: &Path) {
    let machine = Booted::on(ground);
    if !settings.is_empty() {
        machine.run("mkdir -p /etc/camcops");
        fs::write(machine.path("/etc/camcops/provision.toml"), settings).unwrap();
    }
    let watch = Watch::start(&machine);
    let (seconds, out, err) = install(machine.command(COMMAND[0]));
    let watched = watch.end(&machine);
    // Only now: the machine was bare, and the tests want to look.
    let right_after = machine.run(
        "apt-get install --quiet --yes --no-install-recommends curl > /dev/null
         curl --silent --insecure --location https://machine/",
    );
    let seen = json!({
        "seconds": seconds,
        "out": out,
        "err": err,
        "page": right_after,
        "watched": watched,
    });
    fs::write(home.join("seen.json"), seen.to_string()).unwrap();
    machine.shut_down_into(&home.join("disk"));
    // For tests/try, which has no list of packages.
    let ground = bare_ground();
    let below: Vec<String> =
        ground.layers.iter().chain(&ground.wheelhouse).map(|path| path.display().to_string()).collect();
    fs::write(home.join("ground"), below.join("\n")).unwrap();
    let releases = "usr/share/camcops/releases";
    let alone = home.join("release").join(releases);
    fs::create_dir_all(&alone).unwrap();
    done(
        Command::new("cp")
            .args(["--archive", "--link", "--no-target-directory"])
            .args([home.join("disk").join(releases), alone]),
    );
}

/// Installs CamCOPS as a person would, by the program as a machine calls it; gives the seconds that took, and what was
/// said.
pub fn install(program: Command) -> (f64, String, String) {
    install_by(program, &COMMAND[1..])
}

/// The same by other arguments, which have the password read from standard input.
pub fn install_by(mut program: Command, arguments: &[&str]) -> (f64, String, String) {
    let start = Instant::now();
    let mut child =
        program.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("installed in {seconds:.0} s");
    (seconds, out, err)
}
