//! `bundle`: everything that an installation fetches, in one file, for a machine without a network.

use crate::advisories::compact_advisories;
use crate::archive::bundle::advisories::ADVISORY_FILE;
use crate::archive::bundle::manifest::{BundleMachine, BundleManifest, CoveredData, Covers, format_for};
use crate::archive::bundle::{PACKAGES, TOOL, WHEELS, read, write};
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::signals::{Interrupt, STOPPED, stop_on_signals};
use crate::base::stack::box_future;
use crate::base::terminal::{Style, count_of};
use crate::base::text::absolute_path;
use crate::cli::{BundleCommand, BundleCreate, Global};
use crate::drivers::release::PdfEngine;
use crate::drivers::{packages, release};
use crate::host::{Host, PathInfo};
use crate::layout::Packages;
use crate::session::Session;
use crate::session::guards::refuse_unknown_distribution;
use crate::site::facts::{Facts, Pdf};
use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use serde_json::json;
use std::path::Path;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(crate) async fn run(global: &Global, command: &BundleCommand) -> Result<Report> {
    if global.root.is_some() {
        return Err(Exit::Usage.because("a staged tree has no packages to bundle; run without --root"));
    }
    match command {
        BundleCommand::Create(flags) => box_future(|| create_bundle(global, flags)).await,
        BundleCommand::Verify { file } => verify_file(file),
    }
}

async fn create_bundle(global: &Global, flags: &BundleCreate) -> Result<Report> {
    stop_on_signals(Style::of(global))?;
    let mut global = global.clone();
    // What this is made from is given here; what the settings say of that is for `install`.
    let source = match &flags.wheelhouse {
        Some(directory) => {
            let directory = directory
                .canonicalize()
                .map_err(|why| Exit::Unusable.because(format!("--wheelhouse {}: {why}", directory.display())))?;
            global.set.push(format!("camcops.wheelhouse={}", directory.display()));
            "wheelhouse"
        }
        None => "pypi",
    };
    global.set.push(format!("camcops.source={source}"));
    let site = Session::open(&global)?;
    refuse_unknown_distribution(&site)?;
    let host = &site.host;
    let out = output_path(host, &flags.out)?;
    packages::fetch::check_possible(site.drivers.packages()?)?;
    let given = flags.advisories.iter().map(|file| absolute_path(file)).collect::<Result<Vec<_>>>()?;
    let work = Work::new(host, &out)?;
    let made = fill_bundle(&site, &work, &out, &given);
    work.remove()?;
    let (manifest, written) = made?;
    site.close().await;
    let mut document = manifest_summary(&manifest, &out);
    document["size"] = written.bytes.into();
    document["sha256"] = json!(written.sha256);
    Ok(Report::new(document)
        .with_line(format!(
            "{out}: {}; {} MiB, SHA-256 {}",
            describe_manifest(&manifest),
            written.bytes >> 20,
            written.sha256
        ))
        .with_line(
            "on the other machine: `camcops-provision bundle verify FILE`, then `camcops-provision install --offline --bundle FILE`",
        ))
}

/// Where a file is to be made: nothing of that name is there, and its directory is.
pub(super) fn output_path(host: &Host, out: &Path) -> Result<String> {
    let out = std::path::absolute(out)?;
    let out = out.to_str().context("--out: the name of the file is not UTF-8")?;
    let cant = |why: String| Exit::CannotCreate.because(format!("--out {out}: {why}"));
    let directory = out.rsplit_once('/').map_or("", |(directory, _)| directory);
    let directory = if directory.is_empty() { "/" } else { directory };
    let Some(found) = host.look_into(directory)? else {
        return Err(cant(format!("there is no directory {directory}; create it, or choose another file")));
    };
    // Where only owners may rename and remove, nobody exchanges what is made here.
    let sticky = host.is_ours(&PathInfo { mode: 0, ..found.clone() }) && found.mode & 0o1000 != 0;
    if !sticky && !host.is_ours(&found) {
        return Err(cant(format!("other accounts can write to {directory}; choose a file in a directory of yours")));
    }
    match host.stat(out)? {
        Some(_) => Err(cant("it exists already; choose another name".into())),
        None => Ok(out.to_owned()),
    }
}

/// A directory beside the bundle for what is fetched; it goes when the bundle is made, or can't be.
struct Work<'a> {
    host: &'a Host,
    path: String,
    /// Whoever makes the same bundle at the same time is told so.
    _lock: Flock<std::fs::File>,
}

impl Work<'_> {
    fn new<'a>(host: &'a Host, out: &str) -> Result<Work<'a>> {
        let (directory, name) = out.rsplit_once('/').unwrap_or(("", out));
        let path = format!("{directory}/.{name}.work");
        let lock = format!("{path}/lock");
        if host.stat(&path)?.is_none() {
            host.make_directory(&path, None, 0o700)?;
        } else if !host.stat(&path)?.is_some_and(|found| host.is_ours(&found)) {
            return Err(Exit::CannotCreate
                .because(format!("{path} belongs to another account; move it away, or choose another file")));
        }
        if host.stat(&lock)?.is_none() {
            host.put_file(&lock, b"", None, 0o600)?;
        }
        let file = host.open_for_appending(&lock)?.with_context(|| format!("{lock} is gone"))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| Exit::Locked.because(format!("another run is writing {out}; wait for it")))?;
        // What is left of one that was killed.
        for name in host.list(&path)?.unwrap_or_default() {
            if name != "lock" {
                host.remove_tree(&format!("{path}/{name}"))?;
            }
        }
        for name in [WHEELS, PACKAGES, "python", "advisories"] {
            host.make_directory(&format!("{path}/{name}"), None, 0o700)?;
        }
        Ok(Work { host, path, _lock: lock })
    }

    fn remove(self) -> Result<()> {
        self.host.remove_tree(&self.path)
    }
}

/// Fetches all of it, and writes the bundle.
fn fill_bundle(
    site: &Session,
    work: &Work<'_>,
    out: &str,
    given: &[String],
) -> Result<(BundleManifest, crate::archive::pack::PackedSum)> {
    let host = &site.host;
    let at = |name: &str| format!("{}/{name}", work.path);
    // What is broken is told before anything is fetched.
    let advisories = match given.is_empty() {
        true => Covers::new(),
        false => compact_advisories(host, given, &at(ADVISORY_FILE))?,
    };
    let recipe = site.drivers.release.as_ref();
    let recipe = recipe.context("a release can't be built on this machine")?;
    let wanted = release::fetch::wanted_release(host, recipe)?;
    let known = site.facts.flavour.packages;
    let [python, venv, _] = release::python::python_packages(known.manager, &wanted.python);
    let python: Vec<String> = python.into_iter().chain(venv).collect();
    let mut names: Vec<&str> = package_names(known).collect();
    names.extend(pdf_packages(&site.facts, wanted.pdf));
    names.push(site.facts.magick_library());
    names.extend(python.iter().map(String::as_str));
    let debs = packages::fetch::fetch_packages(site.drivers.packages()?, host, &names, &at(PACKAGES), &at("apt"))?;
    Interrupt::Signals.check(STOPPED)?;
    let wheels = release::fetch::fetch_release(host, recipe, wanted, &at(WHEELS), &at("python"))?;
    Interrupt::Signals.check(STOPPED)?;
    let tool = std::env::current_exe()?;
    let tool = tool.to_str().context("this program's name is not UTF-8")?.to_owned();
    let source = |path: &str| match path {
        TOOL => tool.clone(),
        inside => at(inside),
    };
    let named = |directory: &str, files: &[String]| -> Vec<String> {
        files.iter().map(|name| format!("{directory}/{name}")).collect()
    };
    // The program first: with it, the rest can be used.
    let mut paths = vec![TOOL.to_owned()];
    paths.extend((!advisories.is_empty()).then(|| ADVISORY_FILE.to_owned()));
    paths.extend(named(WHEELS, &wheels.files));
    paths.extend(named(PACKAGES, &debs.files));
    let files = paths.iter().map(|path| write::describe_file(host, &source(path), path)).collect::<Result<_>>()?;
    let manifest = BundleManifest {
        format: format_for(&advisories),
        made_at: OffsetDateTime::now_utc().replace_nanosecond(0)?.format(&Rfc3339)?,
        tool: env!("CARGO_PKG_VERSION").into(),
        machine: BundleMachine::this(host)?,
        camcops: wanted.version.as_str().into(),
        python: format!("3.{}", wanted.python.minor),
        release: wanted.id.clone(),
        built: wheels.built,
        packages: debs.names,
        advisories,
        files,
    };
    // What it says must be readable again.
    let text = serde_json::to_vec(&manifest)?;
    if let Err(why) = BundleManifest::parse(&text) {
        return Err(Exit::Failed.because(format!("{out} {why}")));
    }
    let written = write::write_bundle(host, out, &manifest, source)?;
    Ok((manifest, written))
}

/// What any settings may ask for, but for compilers.
fn package_names(known: &Packages) -> impl Iterator<Item = &'static str> {
    [known.web, known.database, known.broker, known.supervisor, known.application, known.logs]
        .into_iter()
        .flatten()
        .copied()
}

/// What makes PDF documents in the release of the bundle.
fn pdf_packages(facts: &Facts, engine: PdfEngine) -> &'static [&'static str] {
    match engine {
        PdfEngine::Weasyprint => facts.weasyprint_packages(),
        PdfEngine::Wkhtmltopdf if facts.pdf == Pdf::Packaged => facts.flavour.packages.wkhtmltopdf,
        PdfEngine::Wkhtmltopdf => &[],
    }
}

fn verify_file(file: &Path) -> Result<Report> {
    let path = file.display().to_string();
    let manifest = read::verify_bundle(&path)?;
    if let Some(why) = manifest.misfit(&Host::live()?)? {
        return Err(Exit::Unusable.because(format!("the bundle {path} is complete, but {why}")));
    }
    Ok(Report::new(manifest_summary(&manifest, &path))
        .with_line(format!("{path} is complete: {}", describe_manifest(&manifest))))
}

fn describe_manifest(manifest: &BundleManifest) -> String {
    format!(
        "CamCOPS {} on Python {} for {}; {} and {} of Python{}, made at {}",
        manifest.camcops,
        manifest.python,
        manifest.machine,
        count_of(manifest.packages.len(), "package"),
        count_of(manifest.count(WHEELS), "package"),
        describe_advisories(&manifest.advisories),
        manifest.made_at
    )
}

/// How many there are about what, and how new they are.
fn describe_advisories(covers: &Covers) -> String {
    let one = |(ecosystem, covered): (&String, &CoveredData)| {
        let date = covered.modified.split('T').next().unwrap_or_default();
        format!(", {} advisories of {ecosystem} (of {date})", covered.records)
    };
    covers.iter().map(one).collect()
}

fn manifest_summary(manifest: &BundleManifest, path: &str) -> serde_json::Value {
    json!({
        "file": path,
        "made_at": manifest.made_at,
        "tool": manifest.tool,
        "machine": manifest.machine,
        "camcops": manifest.camcops,
        "python": manifest.python,
        "release": manifest.release,
        "packages": manifest.packages,
        "wheels": manifest.count(WHEELS),
        "built": manifest.built,
        "advisories": manifest.advisories,
        "bytes": manifest.bytes(),
    })
}
