//! The recipe: what an installation should have. It reads as the table of contents of an installation.
//!
//! It decides and changes nothing: it sees the site (settings, facts, layout) and what was found. Of the machine it asks no
//! more than whether accounts and folders that the settings name are there.

use crate::camcops_conf::{self, Ini};
use crate::certificate::Pair;
use crate::drivers::release;
use crate::drivers::services::member::list_members;
use crate::host::Host;
use crate::layout::{DEDICATED_ACCOUNT, PlannedKind, Whose};
use crate::recipe::render::{Format, Renderer};
use crate::recipe::view::template_view;
use crate::resource::{Content, Facets, Part, Resource, Shown, State, Wanted};
use crate::settings::{AccountUser, BY_FILE, ConfigValue, Frontend, LogMode, Mode, Service};
use crate::site::pages::authority_file;
use crate::site::{Certificate, ExistingState, Site};
use anyhow::{Context, Result};
pub(crate) use exports::list_folders;
use std::collections::BTreeSet;

/// What is wanted, in the order of making, and what the administrator changed and keeps.
#[derive(Debug)]
pub struct Recipe {
    /// Parents before children, accounts before their files.
    pub wanted: Vec<Wanted>,
    /// Keys of camcops.conf that stay as the administrator set them.
    pub(crate) kept: Vec<camcops_conf::kept::KeptSetting>,
    /// What is worth a word but stops nothing.
    pub warnings: Vec<String>,
    /// What this machine lacks for a part, and what to do about it: that part can't be planned.
    pub(crate) missing: Vec<(Part, String)>,
}

/// Everything that an installation should have.
pub(crate) fn desired_state(site: &Site, host: &Host, found: &ExistingState) -> Result<Recipe> {
    let mut recipe = Draft::new(site, host, found)?;
    recipe.broker_settings()?;
    recipe.database_settings()?;
    recipe.packages();
    recipe.accounts();
    recipe.directories();
    recipe.extra_sockets()?;
    recipe.application();
    recipe.second_password();
    recipe.secrets();
    recipe.certificate()?;
    recipe.configuration()?;
    recipe.launchers()?;
    recipe.python_hook()?;
    recipe.database();
    recipe.broker();
    recipe.tables();
    recipe.readers();
    recipe.superuser();
    recipe.services()?;
    recipe.web()?;
    recipe.all_running();
    recipe.issued_certificate();
    recipe.firewall()?;
    recipe.operators()?;
    recipe.extra_services();
    Ok(recipe.finished())
}

struct Draft<'a> {
    site: &'a Site,
    /// Asked only which accounts and folders of the administrator are there.
    host: &'a Host,
    found: &'a ExistingState,
    view: serde_json::Value,
    renderer: Renderer,
    /// Whether CamCOPS has nobody to talk to outside of this machine.
    stays_on_machine: bool,
    /// Where recipients want files.
    export_folders: Vec<String>,
    /// Directories of the administrator's choice, and the services that write to them.
    more_directories: Vec<(Service, String)>,
    recipe: Recipe,
}

/// A text file of ours.
struct Text<'a> {
    path: &'a str,
    text: String,
    whose: Whose,
    mode: &'a str,
    part: Part,
    because: &'a str,
    shown: Shown,
}

macro_rules! template {
    ($name:literal) => {
        ($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/templates/", $name)))
    };
}

mod celery;
mod exports;
pub mod front;
mod operators;
pub mod render;
mod servers;
mod services;
pub mod view;

impl<'a> Draft<'a> {
    fn new(site: &'a Site, host: &'a Host, found: &'a ExistingState) -> Result<Draft<'a>> {
        let mut warnings = site.config_warnings();
        warnings.extend(found.warnings.iter().cloned());
        if let Certificate::Given { warnings: more, .. } | Certificate::Issued { warnings: more, .. } =
            &found.certificate
        {
            warnings.extend(more.iter().cloned());
        }
        Ok(Draft {
            site,
            host,
            found,
            view: template_view(site, found),
            renderer: Renderer::default(),
            stays_on_machine: false,
            export_folders: Vec::new(),
            more_directories: Vec::new(),
            recipe: Recipe { wanted: Vec::new(), kept: Vec::new(), warnings, missing: Vec::new() },
        })
    }

    fn accounts(&mut self) {
        if self.site.settings().account.user != AccountUser::Camcops {
            return;
        }
        let because = "the services run as a dedicated account";
        self.want(Resource::Group(DEDICATED_ACCOUNT.into()), Facets::new(), Part::Accounts, because);
        let facets = match self.site.settings().account.uid.given() {
            Some(uid) => Facets::new().with("uid", uid.get().to_string()),
            None => Facets::new(),
        };
        self.want(Resource::User(DEDICATED_ACCOUNT.into()), facets, Part::Accounts, because);
    }

    fn directories(&mut self) {
        let logs = &self.site.layout.logs;
        let log_files = self.site.settings().logging.mode == LogMode::File;
        let has_apache = self.site.settings().web.frontend == Frontend::Apache;
        let pages = &self.site.layout.pages;
        for row in self.site.layout.rows(self.site.socket_maker()) {
            let unused = row.path == *logs && !log_files || row.path == *pages && !has_apache;
            if row.what != PlannedKind::Directory || unused || row.mode.is_empty() {
                continue;
            }
            let facets = self.owned(Facets::new().with("type", "directory"), row.whose, row.mode);
            self.want(Resource::Directory(row.path), facets, Part::Directories, row.purpose);
        }
    }

    /// The release first, and only then the links that make it the current one.
    fn application(&mut self) {
        let wanted = match release::WantedRelease::new(self.site.settings(), &self.site.facts) {
            Ok(wanted) => wanted,
            // A staged tree has its Python when it runs.
            Err(_) if self.site.facts.staged && self.has_pdf_engine() => return,
            Err(release::Missing(what)) => {
                self.recipe.missing.push((Part::Application, what));
                return;
            }
        };
        let because = format!(
            "CamCOPS {} on {}, with PDF documents by {}",
            wanted.version.as_str(),
            wanted.python.path,
            wanted.pdf.name()
        );
        self.want(Resource::Release(wanted.id.clone()), wanted.facets(), Part::Application, &because);
        if self.site.facts.staged {
            // The first boot knows which release it makes.
            return;
        }
        let layout = &self.site.layout;
        for (path, target, because) in [
            (&layout.venv, format!("releases/{}", wanted.id), "the current release"),
            (&layout.static_files, "venv/static".into(), "its static files"),
            (&layout.release_strings, "venv/extra_strings".into(), "its strings"),
        ] {
            self.link(path, &target, Part::Application, because);
        }
    }

    fn has_pdf_engine(&self) -> bool {
        release::PdfEngine::of(self.site.settings(), &self.site.facts).is_ok()
    }

    fn secrets(&mut self) {
        let found = self.found;
        let keys = [
            (Some(&found.cookie), "signs the session cookies"),
            (found.database.as_ref(), "the application's database password"),
            (Some(&found.broker), "the application's broker password"),
            (Some(&found.monitor), "the monitor's password"),
        ];
        let of_readers = found.readers.values().map(|key| (Some(key), "the password of a read-only database account"));
        for (key, because) in keys.into_iter().chain(of_readers) {
            let Some(key) = key else { continue };
            let Some(path) = &key.kept_in else { continue };
            self.secret(path, format!("{}\n", key.secret.reveal()), Part::Secrets, because);
        }
    }

    fn certificate(&mut self) -> Result<()> {
        let (pair, because, authority) = match &self.found.certificate {
            Certificate::Own { pair, because, authority } => (pair, because, authority.as_ref()),
            Certificate::Issued { text, because, .. } => {
                return self.certificate_from_certbot(text, because);
            }
            Certificate::Given { .. } => return Ok(()),
        };
        let because = match (because.is_empty(), authority) {
            (true, None) => "self-signed, until you install one from an authority".to_owned(),
            (true, Some(_)) => "signed by the site's own authority".to_owned(),
            (false, None) => format!("a new self-signed certificate: {because}"),
            (false, Some(_)) => format!("a new certificate of the site's own authority: {because}"),
        };
        if let Some(authority) = authority {
            self.own_authority(authority, &because);
        }
        // The key first: a certificate without its key would stop the web server.
        let layout = &self.site.layout;
        let (whose, mode) = match self.site.settings().web.own_https() {
            Some(_) => (Whose::RootForService, "0640"),
            None => (Whose::Root, "0600"),
        };
        let (path, text, part) = (layout.key.as_str(), pair.key.to_string(), Part::Certificate);
        self.text(Text { path, text, whose, mode, part, because: &because, shown: Shown::Nothing });
        self.public(&layout.certificate, pair.certificate.clone(), Part::Certificate, &because);
        Ok(())
    }

    /// What signs the site's certificate, for root alone, and what everybody is to trust.
    fn own_authority(&mut self, authority: &Pair, because: &str) {
        let layout = &self.site.layout;
        self.secret(&layout.authority_key, authority.key.to_string(), Part::Certificate, because);
        self.public(&layout.authority, authority.certificate.clone(), Part::Certificate, because);
        if self.site.settings().web.frontend == Frontend::Apache {
            let because = "everybody can get it from the site, to trust it";
            let path = authority_file(layout);
            self.public(&path, authority.certificate.clone(), Part::Certificate, because);
        }
    }

    fn configuration(&mut self) -> Result<()> {
        let layout = &self.site.layout;
        let ours = self.camcops_conf()?;
        let found = self.found;
        let merged = camcops_conf::merge_files(&ours, found.config.as_deref(), found.config_base.as_deref());
        let config = Ini::parse(&merged.text);
        self.stays_on_machine = stays_on_machine(self.site, &config);
        self.export_folders(&config);
        self.celery(&config)?;
        self.recipe.kept =
            merged.kept.iter().map(|kept| camcops_conf::kept::KeptSetting::new(&layout.config, kept)).collect();
        let parts = list_members(self.site).into_iter().filter_map(|one| one.config);
        // What somebody edited by hand is as new as the file, and may have been read since.
        let is_to_stay = found.config.as_deref() == Some(&merged.text);
        let mut known = BTreeSet::new();
        let digests: Vec<_> = parts
            // Services of one kind have one together.
            .filter(|part| known.insert(part.digest.clone()))
            .map(|part| {
                let present = found.config_digests.get(&part.digest);
                let text = match present.filter(|_| is_to_stay) {
                    Some(present) => present.clone(),
                    None => format!("{}\n", part.digest_of(&merged.text)),
                };
                (text, part.digest)
            })
            .collect();
        self.want_text(
            Text {
                path: &layout.config,
                text: merged.text,
                whose: Whose::RootForService,
                mode: "0640",
                part: Part::Configuration,
                because: "CamCOPS's own configuration",
                shown: Shown::Masked,
            },
            Some(Content::new(ours.into_bytes())),
        );
        // After the configuration: before it, a service that starts between the two would seem to have read the new one.
        for (text, path) in &digests {
            let because = "a service restarts when what it reads of that has changed";
            self.secret(path, text.clone(), Part::Configuration, because);
        }
        let login = self.rendered(Format::Mysql, template!("my.cnf.hbs"))?;
        self.secret_of_services(&layout.option_file, login, "the application's database login");
        if self.serves(Service::Monitor) {
            let monitor = self.rendered(Format::Python, template!("flower.py.hbs"))?;
            let because = "the monitor answers on this machine only, and asks for a password";
            self.secret_of_services(&layout.monitor_config, monitor, because);
        }
        Ok(())
    }

    /// The configuration as the settings alone make it.
    fn camcops_conf(&mut self) -> Result<String> {
        let text = self.rendered(Format::Ini, template!("camcops.conf.hbs"))?;
        // An empty value leaves a blank behind its equals sign.
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let mut file = Ini::parse(&(lines.join("\n") + "\n"));
        let passed = &self.site.settings().config;
        let recipients: Vec<&str> = passed.keys().filter_map(|section| section.strip_prefix("recipient:")).collect();
        if !recipients.is_empty() {
            file.set("export", "RECIPIENTS", &camcops_conf::join_list(&recipients))?;
        }
        for (section, values) in passed {
            for (key, value) in values {
                if key.ends_with(BY_FILE) {
                    continue;
                }
                let value = match value {
                    ConfigValue::Line(line) => camcops_conf::escape_value(line),
                    ConfigValue::List(lines) => camcops_conf::escape_value(&camcops_conf::join_list(lines)),
                };
                file.set(section, key, &value)
                    .with_context(|| format!("config.{section}.{key} can't be written to camcops.conf"))?;
            }
        }
        for ((section, key), secret) in &self.found.given {
            let value = camcops_conf::escape_value(secret.reveal());
            file.set(section, key, &value).with_context(|| {
                format!("the content of config.{section}.{key}{BY_FILE} can't be written to camcops.conf")
            })?;
        }
        Ok(file.to_string())
    }

    fn launchers(&mut self) -> Result<()> {
        for program in ["camcops_server", "camcops_server_meta"] {
            self.view["program"] = program.into();
            let launcher = self.rendered(Format::Shell, template!("launcher.sh.hbs"))?;
            self.program(&format!("/usr/bin/{program}"), launcher, Part::Launchers, "CamCOPS's own command");
        }
        for page in [template!("camcops_server.1.hbs"), template!("camcops_server_meta.1.hbs")] {
            let path = format!("/usr/share/man/man1/{}", page.0.trim_end_matches(".hbs"));
            self.public_template(&path, Format::Plain, page, Part::Launchers, "its manual page")?;
        }
        Ok(())
    }

    // How a resource gets into the recipe.

    fn serves(&self, service: Service) -> bool {
        self.site.settings().services.wants(service)
    }

    fn rendered(&mut self, format: Format, (name, template): (&str, &str)) -> Result<String> {
        self.renderer.render(name, format, template, &self.view)
    }

    fn want(&mut self, resource: Resource, facets: Facets, part: Part, because: &str) {
        self.recipe.wanted.push(wanted(resource, facets, part, because));
    }

    /// A file for root alone, whose content is never shown.
    fn secret(&mut self, path: &str, text: String, part: Part, because: &str) {
        self.text(Text { path, text, whose: Whose::Root, mode: "0600", part, because, shown: Shown::Nothing });
    }

    /// The same for the services, which read it.
    fn secret_of_services(&mut self, path: &str, text: String, because: &str) {
        let (whose, part) = (Whose::RootForService, Part::Configuration);
        self.text(Text { path, text, whose, mode: "0640", part, because, shown: Shown::Nothing });
    }

    /// A file that everybody may read.
    fn public(&mut self, path: &str, text: String, part: Part, because: &str) {
        self.text(Text { path, text, whose: Whose::Root, mode: "0644", part, because, shown: Shown::Whole });
    }

    fn public_template(
        &mut self,
        path: &str,
        format: Format,
        template: (&str, &str),
        part: Part,
        because: &str,
    ) -> Result<()> {
        let text = self.rendered(format, template)?;
        self.public(path, text, part, because);
        Ok(())
    }

    fn program(&mut self, path: &str, text: String, part: Part, because: &str) {
        self.text(Text { path, text, whose: Whose::Root, mode: "0755", part, because, shown: Shown::Whole });
    }

    fn text(&mut self, file: Text<'_>) {
        self.want_text(file, None);
    }

    fn want_text(&mut self, file: Text<'_>, base: Option<Content>) {
        let facets = Facets::new().with("type", "file").with("content", Content::new(file.text.into_bytes()));
        let facets = self.owned(facets, file.whose, file.mode);
        let resource = Resource::File(file.path.to_owned());
        self.recipe.wanted.push(Wanted {
            shown: file.shown,
            base,
            ..wanted(resource, facets, file.part, file.because)
        });
    }

    fn link(&mut self, path: &str, target: &str, part: Part, because: &str) {
        let facets = Facets::new().with("type", "symlink").with("target", target);
        self.want(Resource::Symlink(path.to_owned()), facets, part, because);
    }

    /// With owner and mode.
    fn owned(&self, facets: Facets, whose: Whose, mode: &str) -> Facets {
        self.given_to(facets.with("mode", mode), self.site.owner_of(whose))
    }

    /// With an owner. One that this tree does not know, or that an ordinary user can't give to, is left to the first boot.
    fn given_to(&self, facets: Facets, owner: String) -> Facets {
        let facts = &self.site.facts;
        let known = owner.split_once(':').is_some_and(|(user, group)| facts.can_give_to(user, group));
        match !facts.staged || known {
            true => facets.with("owner", owner),
            false => facets,
        }
    }

    /// With every directory that something stands in: those that nobody asked for by name are only made if they are missing.
    fn finished(mut self) -> Recipe {
        // Those that are asked for, and soon those that were seen.
        let mut known: BTreeSet<String> = self
            .recipe
            .wanted
            .iter()
            .filter(|wanted| matches!(wanted.resource, Resource::Directory(_)))
            .map(|wanted| wanted.resource.name().to_owned())
            .collect();
        let mut all = Vec::with_capacity(self.recipe.wanted.len() * 2);
        for wanted in std::mem::take(&mut self.recipe.wanted) {
            if let Resource::Directory(path) | Resource::File(path) | Resource::Symlink(path) = &wanted.resource {
                for parent in parent_directories(path) {
                    if known.insert(parent.clone()) {
                        let because = "contains files of CamCOPS";
                        all.push(self::wanted(Resource::Directory(parent), Facets::new(), wanted.part, because));
                    }
                }
            }
            all.push(wanted);
        }
        self.recipe.wanted = all;
        self.recipe
    }
}

/// What is wanted with these facets, and may be shown.
fn wanted(resource: Resource, facets: Facets, part: Part, because: &str) -> Wanted {
    Wanted {
        resource,
        state: State::Present(facets),
        because: because.to_owned(),
        part,
        shown: Shown::Whole,
        base: None,
        inputs: Vec::new(),
    }
}

/// Mail, text messages and the exports of recipients leave the machine, whoever wrote them into the configuration.
fn stays_on_machine(site: &Site, config: &Ini) -> bool {
    let settings = site.settings();
    let is_any = |section: &str, key: &str, idle: &[&str]| {
        let value = config.get(section, key).unwrap_or_default();
        !idle.contains(&value.trim())
    };
    settings.database.mode == Mode::Local
        && settings.broker.mode == Mode::Local
        && !is_any("site", "EMAIL_HOST", &[""])
        && !is_any("site", "SMS_BACKEND", &["", "console"])
        && !is_any("export", "RECIPIENTS", &[""])
}

/// `/a/b/c` stands in `/a` and `/a/b`.
fn parent_directories(path: &str) -> Vec<String> {
    path.match_indices('/').skip(1).map(|(end, _)| path[..end].to_owned()).collect()
}
