use super::*;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

const RECORDS: &str = "\
Package: dpkg
Status: install ok installed
Architecture: amd64

Package: mariadb-server
Status: hold ok installed
Architecture: amd64
Provides: virtual-mysql-server, other-name (= 1:2.0)
Description: a server
 Package: not-this-one

Package: apache2
Status: deinstall ok config-files
Architecture: amd64

Package: supervisor
Status: install ok half-configured
Architecture: all

Package: logrotate
Status: install reinstreq installed
Architecture: amd64

Package: libmagickwand-6.q16-6
Status: install ok installed
Architecture: i386

Package: ca-certificates
Architecture: all
Status: install ok triggers-pending
";

#[test]
fn what_is_whole_and_of_this_architecture_is_installed() {
    let names = parse_installed(RECORDS);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(names, ["ca-certificates", "dpkg", "mariadb-server", "other-name", "virtual-mysql-server"]);
}

#[test]
fn a_name_without_a_candidate_can_t_be_had() {
    let policy = "apache2:\n  Installed: (none)\n  Candidate: 2.4.62-1\n  Version table:\n     2.4.62-1 500\n        500 http://archive bookworm/main amd64 Packages\nvirtual-mysql-server:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n";
    assert_eq!(parse_candidates(policy), BTreeSet::from(["apache2"]));
}

fn why(output: &str) -> (Exit, String) {
    let ended = Ended { status: ExitStatus::from_raw(100 << 8), output: output.to_owned(), complaint: String::new() };
    let why = explain_failure(&ended);
    let text = why.to_string();
    assert!(!text.contains('\n'), "{text}");
    (Exit::of(&why), text)
}

#[test]
fn each_trouble_is_one_line_that_says_what_next() {
    let cases: [(&str, Exit, &[&str]); 9] = [
        (
            "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4711 (unattended-upgr)\nE: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?\n",
            Exit::Locked,
            &["held by process 4711", "run again"],
        ),
        (
            "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem. \n",
            Exit::Failed,
            &["`dpkg --configure -a`"],
        ),
        (
            "The following packages have unmet dependencies:\n apache2 : Depends: apache2-bin (= 2.4) but it is not going to be installed\nE: Unmet dependencies. Try 'apt --fix-broken install' with no packages (or specify a solution).\n",
            Exit::Failed,
            &["apache2 : Depends: apache2-bin (= 2.4)", "--fix-broken install"],
        ),
        (
            "The following packages will be REMOVED:\n  mysql-server mysql-client\nThe following NEW packages will be installed:\n  mariadb-server\nE: Packages need to be removed but remove is disabled.\n",
            Exit::CannotCreate,
            &["mysql-server, mysql-client", "nothing is removed"],
        ),
        (
            "Ign:1 http://archive.example bookworm InRelease\nE: Failed to fetch http://archive.example/dists/x/InRelease  Temporary failure resolving 'archive.example'\nE: Some index files failed to download. They have been ignored, or old ones used instead.\n",
            Exit::Unreachable,
            &["http://archive.example/dists/x/InRelease Temporary failure resolving", "the proxy"],
        ),
        (
            "Setting up rabbitmq-server (3.10.8) ...\ndpkg: error processing package rabbitmq-server (--configure):\n installed rabbitmq-server package post-installation script subprocess returned error exit status 1\nErrors were encountered while processing:\n rabbitmq-server\nE: Sub-process /usr/bin/dpkg returned an error code (1)\n",
            Exit::Failed,
            &["could not set up rabbitmq-server: installed rabbitmq-server package post-installation", "term.log"],
        ),
        (
            "dpkg: error processing archive /var/cache/apt/archives/a_1_all.deb (--unpack):\n trying to overwrite '/usr/bin/a', which is also in package b 1\nE: Sub-process /usr/bin/dpkg returned an error code (1)\n",
            Exit::Failed,
            &["a_1_all.deb: trying to overwrite '/usr/bin/a'"],
        ),
        (
            "E: You don't have enough free space in /var/cache/apt/archives/.\n",
            Exit::Io,
            &["don't fit", "/var/cache/apt/archives/"],
        ),
        (
            "E: The repository 'http://archive.example x Release' is not signed.\n",
            Exit::Unreachable,
            &["is not signed"],
        ),
    ];
    for (output, exit, words) in cases {
        let (given, text) = why(output);
        assert_eq!(given, exit, "{text}");
        for word in words {
            assert!(text.contains(word), "{text}");
        }
    }
    let (exit, text) = why("E: Something new\n");
    assert_eq!(exit, Exit::Failed);
    assert!(text.ends_with(": Something new"), "{text}");
}

#[test]
fn only_what_is_gone_from_the_archive_asks_for_new_lists() {
    assert!(is_gone("E: Failed to fetch http://archive.example/a.deb  404  Not Found [IP: 192.0.2.1 80]\n"));
    assert!(!is_gone(
        "E: Failed to fetch http://archive.example/a.deb  Temporary failure resolving 'archive.example'\n"
    ));
}

#[test]
fn the_sizes_of_what_would_be_fetched_are_summed() {
    let printed = "Reading package lists...\n'http://archive.example/a%7e1.deb' a_1~1.deb 1200 SHA256:11\n\
        'http://archive.example/b.deb' b_1.deb 34 \nThe following NEW packages: 7 9 11\n";
    assert_eq!(parse_sizes(printed), 1234);
    assert_eq!(parse_sizes("Reading package lists...\n"), 0);
}
