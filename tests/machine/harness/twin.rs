//! A machine on which a bundle can be made: it has a compiler, and everything that is to be fetched in an archive of
//! packages and a directory of its own.

use super::{Machine, base, done, kept, key, possible, wheelhouse};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What its archive has, with all that this relies on.
const ARCHIVE: &str = "apache2 ca-certificates libmagickwand-6.q16-6 logrotate mariadb-server python3.11 python3.11-venv rabbitmq-server supervisor wkhtmltopdf";

/// As on a machine that has no package yet, from the sources of the host, which is a Debian 12.
const FETCH: &str = r#"
apt=$1.apt archive=$1/archive
rm -rf "$apt"
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$archive"
: > "$apt/status"
options="-o Dir::State::lists=$apt/lists -o Dir::State::status=$apt/status -o Dir::Cache=$apt/cache -o APT::Sandbox::User=root -o Debug::NoLocking=true"
apt-get $options --quiet update
cd "$archive"
apt-get $options --simulate --no-install-recommends install $2 |
    sed -nE 's/^Inst ([^ ]+) \(([^ ]+) .*/\1=\2/p' > "$apt/all"
apt-get $options --quiet download $(cat "$apt/all")
dpkg-scanpackages --multiversion . > Packages
rm -rf "$apt"
"#;

/// Starts it, with the sources of packages that lead to its archive; none where this is not possible.
pub fn machine() -> Option<Machine> {
    possible().then(|| {
        let machine = Machine::on(&[base("bookworm", &wheelhouse::BUILDING)], &files(), None);
        machine.run(
            "rm -rf /etc/apt/sources.list*
             echo 'deb [trusted=yes] file:/srv/wheelhouse/archive ./' > /etc/apt/sources.list",
        );
        machine
    })
}

fn files() -> PathBuf {
    let wheels = wheelhouse::kept();
    let name = format!("twin-{}", key(&format!("{}{FETCH}{ARCHIVE}", wheels.display())));
    kept(&name, "fetching an archive of packages", |home| {
        fs::create_dir_all(home).unwrap();
        done(
            Command::new("bash")
                .args(["-euc", FETCH, "fetch"])
                .arg(home)
                .arg(ARCHIVE)
                .stdout(std::process::Stdio::null()),
        );
        for file in fs::read_dir(wheels).unwrap() {
            let file = file.unwrap();
            fs::hard_link(file.path(), home.join(file.file_name())).unwrap();
        }
    })
}
