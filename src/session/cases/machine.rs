//! The machine of a case: a directory that stands for its root, the settings, and every driver as a live site has them.

use super::file::{Case, Entry, Stands};
use crate::base::progress::{Tell, Told};
use crate::base::secret::Secret;
use crate::drivers::release;
use crate::host::Host;
use crate::host::script::{self, Playing, make_directory};
use crate::journal::{Journal, Writer};
use crate::layout::{self, Layout};
use crate::resource::{Change, Content, FacetValue, Facets, Resource, State};
use crate::session::Session;
use crate::settings::{Settings, Sources};
use crate::site::Site;
use crate::site::facts::{Facts, Manager};
use serde_json::{Value as Json, json};
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Accounts that are on every machine of a case. Root is whoever runs the tests: its files are theirs.
const ACCOUNTS: [(&str, u32); 6] =
    [("www-data", 33), ("apache", 48), ("adm", 4), ("rabbitmq", 107), ("mysql", 108), ("nobody", 65534)];
/// A release asks for a little less room.
const ENOUGH: u64 = 2 << 30;
const SECRETS: [&str; 5] = ["cookie", "database", "readonly", "broker", "monitor"];

/// A machine, while its case is played.
pub(super) struct Machine {
    pub(super) root: tempfile::TempDir,
    pub(super) session: Session,
    /// What differs from one machine or release to the next, and what is written for it.
    pub(super) names: Vec<(String, String)>,
    id: String,
}

impl Machine {
    pub(super) fn of(case: &Case) -> Machine {
        let root = tempfile::tempdir_in(home()).unwrap();
        lay_out(root.path(), case);
        let session = session(root.path(), case);
        let id = release::WantedRelease::new(session.settings(), &session.facts)
            .map_or_else(|_| "none".to_owned(), |one| one.id);
        let names = vec![(root.path().to_string_lossy().into_owned(), String::new()), (id.clone(), "{id}".to_owned())];
        Machine { root, session, names, id }
    }

    /// `KIND NAME`; `{id}` is the release that the settings ask for.
    pub(super) fn resource(&self, name: &str) -> Resource {
        resource(&name.replace("{id}", &self.id))
    }

    /// What stands in it.
    pub(super) fn tree(&self) -> BTreeMap<String, Entry> {
        let mut tree = BTreeMap::new();
        walk(self.root.path(), self.root.path(), &self.names, &mut tree);
        tree
    }
}

/// Where directories of cases are: in memory, where there is enough of it, as each write is made to last.
fn home() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let free = nix::sys::statvfs::statvfs(memory);
    let is_large = free.is_ok_and(|free| free.blocks_available() * free.fragment_size() > ENOUGH);
    match is_large && nix::unistd::access(memory, nix::unistd::AccessFlags::W_OK).is_ok() {
        true => memory.to_owned(),
        false => std::env::temp_dir(),
    }
}

fn resource(name: &str) -> Resource {
    let (kind, name) = name.split_once(' ').expect("KIND NAME");
    serde_json::from_value(json!({"kind": kind, "name": name})).unwrap()
}

fn walk(root: &Path, directory: &Path, names: &[(String, String)], tree: &mut BTreeMap<String, Entry>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let inside = format!("/{}", path.strip_prefix(root).unwrap().display());
        let data = fs::symlink_metadata(&path).unwrap();
        let kind = data.file_type();
        let text = |path: &Path| {
            let bytes = fs::read(path).unwrap();
            script::plain(names, &String::from_utf8_lossy(&bytes))
        };
        let link = kind.is_symlink().then(|| fs::read_link(&path).unwrap());
        let found = Entry {
            directory: kind.is_dir(),
            socket: kind.is_socket(),
            content: kind.is_file().then(|| text(&path)),
            link: link.map(|to| script::plain(names, &to.to_string_lossy())),
            mode: (!kind.is_symlink()).then(|| format!("{:04o}", data.permissions().mode() & 0o7777)),
            inode: (!kind.is_dir()).then(|| data.ino()),
            ..Entry::default()
        };
        tree.insert(script::plain(names, &inside), found);
        if kind.is_dir() {
            walk(root, &path, names, tree);
        }
    }
}

fn put(root: &Path, path: &str, stands: &Stands) {
    let at = root.join(path.trim_start_matches('/'));
    make_directory(root, at.parent().unwrap());
    let entry = match stands {
        Stands::Text(text) => Entry { content: Some(text.clone()), ..Entry::default() },
        Stands::Entry(entry) => entry.clone(),
    };
    let mode = match &entry.mode {
        Some(mode) => u32::from_str_radix(mode, 8).unwrap(),
        None if entry.directory => 0o755,
        None => 0o644,
    };
    if let Some(target) = &entry.link {
        symlink(target, &at).unwrap();
        return;
    }
    match entry.directory {
        true => make_directory(root, &at),
        false if entry.socket => {
            use nix::sys::stat::{Mode, SFlag, mknod};
            mknod(&at, SFlag::S_IFSOCK, Mode::S_IRWXU, 0).unwrap();
        }
        false => fs::write(&at, entry.content.unwrap_or_default()).unwrap(),
    }
    fs::set_permissions(&at, Permissions::from_mode(mode)).unwrap();
}

/// What stands on the machine.
fn lay_out(root: &Path, case: &Case) {
    fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
    let text = |path: &str, text: &str| put(root, path, &Stands::Text(text.to_owned()));
    text(
        "/etc/os-release",
        match case.machine.os.as_deref() {
            None => "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
            Some("rocky") => {
                "ID=rocky\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.4\"\nPRETTY_NAME=\"Rocky Linux 9.4\"\n"
            }
            Some(other) => panic!("no such machine: {other}"),
        },
    );
    text("/etc/hostname", "camcops.example.org\n");
    text("/etc/timezone", "Europe/London\n");
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let mut passwd = format!("root:x:{user}:{group}::/root:/bin/sh\n");
    let mut groups = format!("root:x:{group}:\n");
    let more = case.machine.accounts.iter().map(|one| {
        let (name, number) = one.split_once(':').expect("NAME:NUMBER");
        (name, number.parse().unwrap())
    });
    for (name, number) in ACCOUNTS.into_iter().chain(more) {
        passwd.push_str(&format!("{name}:x:{number}:{number}::/:/bin/false\n"));
        groups.push_str(&format!("{name}:x:{number}:\n"));
    }
    text("/etc/passwd", &passwd);
    text("/etc/group", &groups);
    if !case.machine.without_systemd {
        make_directory(root, &root.join("run/systemd/system"));
    }
    let slug = layout::instance_slug(instance(case));
    for name in SECRETS {
        let entry = Entry { content: Some(format!("{name}-secret\n")), mode: Some("0600".into()), ..Entry::default() };
        let path = format!("/etc/camcops/secrets/{slug}/{name}");
        put(root, &path, &Stands::Entry(entry));
    }
    for directory in ["run/camcops-provision", "var/lib", "usr/bin"] {
        make_directory(root, &root.join(directory));
    }
    if case.machine.web_socket {
        let socket = Entry { socket: true, ..Entry::default() };
        put(root, &format!("/run/{slug}/{slug}.socket"), &Stands::Entry(socket));
    }
    for (path, stands) in &case.files {
        put(root, path, stands);
    }
}

fn instance(case: &Case) -> &str {
    let instance = case.machine.instance.as_deref();
    instance.unwrap_or(layout::DEFAULT_INSTANCE)
}

/// The session of the case, with all drivers as a live one has them.
fn session(root: &Path, case: &Case) -> Session {
    let host = Host::staged(root).unwrap();
    let sources =
        Sources { files: vec![(PathBuf::from("provision.toml"), case.settings_text.clone())], ..Sources::default() };
    let resolved = match Settings::resolve(&sources) {
        Ok(resolved) => resolved,
        Err(why) => panic!("settings: {why}"),
    };
    let mut facts = Facts::gather(&host).unwrap();
    facts.staged = false;
    facts.manager = match case.machine.without_systemd {
        true => Manager::Supervisor,
        false => Manager::Systemd,
    };
    let layout = Layout::new(facts.flavour, instance(case));
    let site = Site {
        instance: instance(case).to_owned(),
        settings_file: root.join("etc/camcops/provision.toml"),
        resolved,
        facts,
        layout,
    };
    let session = Session {
        drivers: crate::session::drivers(&site, Tell(tell)),
        site,
        host,
        style: Default::default(),
        renewed: OnceCell::new(),
        only_shows: false,
        new_certificate: None,
        tried: RefCell::default(),
    };
    write_journal(&session, &case.machine.made);
    let mut found = session.read_existing(&Journal::default()).unwrap();
    found.former_database = case.machine.former_password.clone().map(Secret::new);
    // Only a machine that runs has drivers to be given secrets.
    let playing = Playing::begin(root, &[], &[], &[], false);
    session.load_secrets(&found).unwrap();
    let (asked, _) = playing.end();
    assert!(asked.is_empty(), "asked too early: {asked:?}");
    if let Some(password) = &case.machine.superuser_password {
        let password = Secret::new(password.clone());
        session.drivers.superuser_password.replace(Some(password));
    }
    if let Some(application) = &session.drivers.application {
        application.no_reindex.set(case.machine.no_reindex);
        if let Some(name) = &case.machine.first_superuser {
            session.drivers.want_first_superuser(name);
        }
    }
    if let (Some(dump), Some(application)) = (&case.machine.dumped, &session.drivers.application) {
        application.dumped.replace(Some(dump.clone()));
    }
    session
}

/// An amount is worth a line in a case when it is whole.
fn tell(told: Told<'_>) {
    match told {
        Told::Line(line) => script::note("tell", line),
        Told::Amount(amount) if amount.done == amount.all => script::note("tell", &amount.line()),
        Told::Amount(_) => {}
    }
}

/// The journal of what was made, each as it was not before.
fn write_journal(session: &Session, made: &[String]) {
    if made.is_empty() {
        return;
    }
    let mut writer = Writer::open(&session.host, &session.instance, "install").unwrap();
    for name in made {
        let change = Change { resource: resource(name), before: State::Absent, after: State::Present(Facets::new()) };
        let number = writer.intend(&change, None, false).unwrap();
        writer.done(number, &change, None, false).unwrap();
    }
}

/// A state as a case has it.
pub(super) fn state(text: &Json) -> State {
    let Json::Object(facets) = text else {
        assert_eq!(text, "absent", "a state is \"absent\" or a table");
        return State::Absent;
    };
    let all = facets.iter().fold(Facets::new(), |all, (name, value)| {
        let value: FacetValue = match value {
            Json::String(text) if name == "content" => Content::new(text.as_bytes()).into(),
            Json::String(text) => text.as_str().into(),
            words => serde_json::from_value(words.clone()).unwrap(),
        };
        all.with(name, value)
    });
    State::Present(all)
}

/// The same, the other way round.
pub(super) fn facets(state: &State) -> Json {
    let Some(facets) = state.facets() else {
        return "absent".into();
    };
    let all = facets.iter().map(|(name, value)| {
        let value = match value {
            FacetValue::Content(content) => {
                let bytes = content.bytes().unwrap_or_default();
                String::from_utf8_lossy(bytes).into()
            }
            other => json!(other),
        };
        (name.to_owned(), value)
    });
    Json::Object(all.collect())
}
