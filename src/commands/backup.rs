//! `backup`: a site's database with all that makes up the site, written down, checked, brought back and cleared away.

mod dump;
mod restore;

use super::{load_site, need_machine};
use crate::archive::pack::{self, unpack_stream};
use crate::backup::retention::{Rule, mark_kept};
use crate::backup::summary::{self};
use crate::backup::{self, BackupEntry, BackupKind, Opened, files, make};
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::signals::stop_on_signals;
use crate::base::stack::box_future;
use crate::base::terminal::{Style, count_of};
use crate::cli::{Backup, Global};
use crate::drivers::sql::Database;
use crate::drivers::sql::copy::load::{self, DumpSource, ScratchDatabase};
use crate::drivers::sql::copy::scan::DumpScan;
use crate::host::{Ends, Flow, Host};
use crate::journal::{self, Journal};
use crate::session::Session;
use crate::settings::Pruning;
use anyhow::{Context, Result};
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;
use time::OffsetDateTime;

/// The newest whole backup goes by this name, too.
const LATEST: &str = "latest";

pub(crate) async fn run(global: &Global, command: &Backup) -> Result<Report> {
    need_machine(global, "handle backups")?;
    match command {
        Backup::List => list_backups(&Session::open(global)?),
        Backup::Restore(flags) => box_future(|| restore::run(global, flags)).await,
        Backup::Prune { dry_run, rule } => {
            let site = Session::open(global)?;
            let _lock = journal::try_lock(&site.host)?;
            let gone = prune_backups(&site, rule.unwrap_or(site.settings().backup.prune), *dry_run)?;
            Ok(report_pruned(&site, &gone, *dry_run))
        }
        Backup::Create { out: Some(out), format, .. } => box_future(|| dump::dump_database(global, out, *format)).await,
        Backup::Create { scheduled, .. } => box_future(|| create_backup(global, *scheduled)).await,
        Backup::Verify { name, quick, identity } => {
            verify_backup(global, name.as_deref(), *quick, identity.identity.as_deref()).await
        }
    }
}

async fn create_backup(global: &Global, scheduled: bool) -> Result<Report> {
    stop_on_signals(Style::of(global))?;
    let site = saved_site(global)?;
    let _lock = journal::try_lock(&site.host)?;
    let begin = Instant::now();
    let known = site.drivers.database()?;
    let made = site.close_after(make::make_backup(&site.host, &site, &known, None).await).await;
    summary::record_result(&site.host, &site.instance, made.as_ref().err())?;
    let made = made?;
    let rule = site.settings().backup.prune;
    let gone = if scheduled && rule != Pruning::Never { prune_backups(&site, rule, false)? } else { Vec::new() };
    let database = &made.manifest.database;
    let report = Report::new(json!({
        "instance": site.instance,
        "name": made.name,
        "path": made.path,
        "bytes": made.bytes,
        "tables": database.tables.len(),
        "rows": database.rows(),
        "encrypted": made.manifest.encrypted_to.is_some(),
        "left_out": database.left_out,
        "pruned": gone.iter().map(|found| &found.name).collect::<Vec<_>>(),
    }));
    let left_out = (!database.left_out.is_empty()).then(|| format!("not included: {}", database.left_out.join(", ")));
    Ok(report
        .with_line(format!(
            "{}: {} in {}, {} MiB, {:.1} s",
            made.path,
            count_of(database.rows(), "row"),
            count_of(database.tables.len(), "table"),
            format_mib(made.bytes),
            begin.elapsed().as_secs_f64()
        ))
        .with_lines(left_out)
        .with_lines(gone.iter().map(|found| format!("removed {} (backup.prune)", found.name))))
}

/// The site, even where its journal can't be read: what is wrong there is no reason to lose the patients' data.
fn saved_site(global: &Global) -> Result<Session> {
    let site = Session::open(global)?;
    let journal = site.journal().unwrap_or_else(|why| {
        site.style.warn(&[format!("{why:#}; the backup is made nevertheless")]);
        Journal::default()
    });
    site.load_secrets(&site.read_existing(&journal)?)?;
    Ok(site)
}

fn format_mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

/// The files that belong to a backup, in plain text where they are not encrypted.
fn open_files(host: &Host, opened: &Opened, identity: Option<&Path>) -> Result<Payload> {
    open_payload(host, &opened.files, opened.manifest.encrypted_to.is_some(), identity)
}

/// The database of a backup, in plain text where it is not encrypted.
fn open_database(host: &Host, opened: &Opened, identity: Option<&Path>) -> Result<Payload> {
    open_payload(host, &opened.database, opened.manifest.encrypted_to.is_some(), identity)
}

/// A file of a backup, and who decrypts it where it is encrypted.
#[derive(Debug)]
struct Payload {
    file: File,
    decrypted: Option<Flow>,
}

impl Payload {
    fn read<T>(mut self, host: &Host, read: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<T> {
        let Some(flow) = &mut self.decrypted else {
            return read(&mut self.file);
        };
        let mut output = flow.output.take().context("age printed nothing")?;
        let done = read(&mut output);
        // What is behind the end is of no interest.
        let _ = std::io::copy(&mut output, &mut std::io::sink());
        drop(output);
        if let Some(flow) = self.decrypted.take() {
            flow.end(host).map_err(|why| Exit::Unusable.because(format!("the backup can't be decrypted: {why:#}")))?;
        }
        done
    }
}

fn open_payload(host: &Host, file: &File, encrypted: bool, identity: Option<&Path>) -> Result<Payload> {
    let mut file = file.try_clone()?;
    std::io::Seek::rewind(&mut file)?;
    let decrypted = match (encrypted, identity) {
        (false, _) => None,
        (true, None) => return Err(identity_needed()),
        (true, Some(identity)) => {
            let identity = std::path::absolute(identity)?;
            let age = host.child("age").args(["--decrypt", "--identity"]);
            let flow = age.args([&identity]).stdin(file.try_clone()?).flow(Ends::Output);
            Some(flow.context("the backup is encrypted; install the package age to decrypt it")?)
        }
    };
    Ok(Payload { file, decrypted })
}

fn identity_needed() -> anyhow::Error {
    Exit::Usage
        .because("the backup is encrypted: give the file of the age identity that decrypts it, with --identity FILE")
}

/// The path of a backup by its name, or the path that is given.
fn backup_path(site: &Session, name: &str) -> Result<String> {
    let directory = site.settings().backup.directory.as_str();
    if name.contains('/') {
        let path = std::path::absolute(name)?;
        let path = path.to_str().map(|path| path.trim_end_matches('/').to_owned());
        return path.ok_or_else(|| Exit::Usage.because("its name is not UTF-8"));
    }
    if name != LATEST {
        return Ok(format!("{directory}/{name}"));
    }
    let newest = make::list_site_backups(&site.host, site.settings(), &site.layout.slug)?
        .into_iter()
        // A newest one that is damaged is told, and not passed over in silence; what holds the data that was replaced is
        // only brought back by its name.
        .rfind(|found| found.what == BackupKind::Backup && found.before().is_none());
    match newest {
        Some(found) => Ok(format!("{directory}/{}", found.name)),
        None => Err(Exit::Unusable.because(format!(
            "{directory} has no backup of {}; `camcops-provision backup create` makes one",
            site.layout.slug
        ))),
    }
}

async fn verify_backup(global: &Global, name: Option<&str>, quick: bool, identity: Option<&Path>) -> Result<Report> {
    stop_on_signals(Style::of(global))?;
    let site = if quick { Session::open(global)? } else { load_site(global)? };
    let path = backup_path(&site, name.unwrap_or(LATEST))?;
    let begin = Instant::now();
    let opened = backup::open_backup(&site.host, &path)?;
    let encrypted = opened.manifest.encrypted_to.is_some();
    let looked_into = !(quick && encrypted && identity.is_none());
    if looked_into {
        open_files(&site.host, &opened, identity)?.read(&site.host, |files| {
            let kept = files::list_names(&site.host, files)?;
            let wanted = opened.manifest.files.iter().map(|kept| &kept.path);
            match kept.iter().eq(wanted) {
                true => Ok(()),
                false => Err(Exit::Unusable.because(format!("{path}: the files do not match its manifest"))),
            }
        })?;
    }
    let tables = &opened.manifest.database.tables;
    if quick && looked_into {
        let database = open_database(&site.host, &opened, identity)?;
        let scan = database.read(&site.host, |packed| scan_dump(packed, &path))?;
        load::compare_counts(tables, &scan.tables)?;
    } else if !quick {
        let known = site.drivers.database()?;
        let _lock = journal::try_lock(&site.host)?;
        let loaded = async {
            let name = load_beside(&site, &known, &opened, identity, ScratchDatabase::Verify).await?;
            load::compare_counts(tables, &load::count_rows(&known, &name).await?)
        };
        let loaded = loaded.await;
        let cleared = load::drop_scratch(&known, ScratchDatabase::Verify).await;
        site.close_after(loaded.and(cleared)).await?;
    }
    let how = match (quick, looked_into) {
        (true, false) => "its checksums are right; it is encrypted, and its contents were not checked",
        (true, true) => "its checksums and its contents are right",
        (false, _) => "it was loaded into a temporary database, and its contents are right",
    };
    let rows = opened.manifest.database.rows();
    let report = Report::new(json!({
        "instance": site.instance,
        "path": path,
        "loaded": !quick,
        "looked_into": looked_into,
        "tables": tables.len(),
        "rows": rows,
    }));
    Ok(report.with_remark(format!(
        "{path} can be restored: {how} ({} in {}, {:.1} s)",
        count_of(rows, "row"),
        count_of(tables.len(), "table"),
        begin.elapsed().as_secs_f64()
    )))
}

/// Reads a dump to its end.
fn scan_dump(packed: &mut dyn Read, path: &str) -> Result<DumpScan> {
    let damaged = |why: String| Exit::Unusable.because(format!("{path}: the dump {why}"));
    let read = |why: std::io::Error| damaged(why.to_string());
    let mut text = unpack_stream(packed).map_err(read)?;
    let mut scan = DumpScan::default();
    let mut piece = vec![0; pack::PIECE];
    loop {
        match text.read(&mut piece).map_err(read)? {
            0 => break,
            some => scan.feed(&piece[..some]),
        }
    }
    if scan.complete { Ok(scan) } else { Err(damaged("is incomplete".into())) }
}

/// Loads the database of a backup into one that is made for it.
async fn load_beside(
    site: &Session,
    known: &Database,
    opened: &Opened,
    identity: Option<&Path>,
    purpose: ScratchDatabase,
) -> Result<String> {
    let host = &site.host;
    let database = &opened.manifest.database;
    load::need_power(known, ", or check it without a database: --quick")?;
    known.server.started(host).await?;
    load::check_room(host, known, database.data_bytes).await?;
    site.drivers.application()?.tell.line(&format!("loading {} into a temporary database", opened.path));
    let name = load::create_scratch(known, purpose, &database.charset, &database.collation).await?;
    let payload = open_database(host, opened, identity)?;
    let source = match payload.decrypted {
        None => {
            DumpSource::Sections { file: &payload.file, sections: &database.sections, text_bytes: database.text_bytes }
        }
        decrypted => DumpSource::Stream { file: &payload.file, decrypted },
    };
    load::load_dump(host, known, &name, source).await?;
    Ok(name)
}

fn list_backups(site: &Session) -> Result<Report> {
    let all = make::list_site_backups(&site.host, site.settings(), &site.layout.slug)?;
    let directory = site.settings().backup.directory.as_str();
    let rows: Vec<_> = all.iter().map(|found| backup_row(found, directory)).collect();
    let report = Report::new(json!({ "instance": site.instance, "directory": directory, "backups": rows }));
    Ok(match all.is_empty() {
        true => report.with_remark(format!("{directory} has no backups of {}", site.layout.slug)),
        false => report.with_lines(all.iter().map(format_entry)),
    })
}

fn format_entry(found: &BackupEntry) -> String {
    let what = match (found.what, &found.manifest) {
        (BackupKind::Unfinished, _) => "unfinished: the next `backup create` or `prune` removes it".to_owned(),
        (BackupKind::Dump, _) => "database only".to_owned(),
        (BackupKind::Backup, None) => "its manifest can't be read".to_owned(),
        (BackupKind::Backup, Some(manifest)) => format!(
            "CamCOPS {}, revision {}, {} by {}{}{}",
            manifest.release.as_deref().unwrap_or("unknown"),
            manifest.database.revision.as_deref().unwrap_or("unknown"),
            count_of(manifest.database.rows(), "row"),
            manifest.server,
            if manifest.encrypted_to.is_some() { ", encrypted" } else { "" },
            found.before().map_or_else(String::new, |before| format!(", made before {before}: not the latest"))
        ),
    };
    format!("{}  {:>9} MiB  {what}", found.name, format_mib(found.bytes))
}

fn backup_row(found: &BackupEntry, directory: &str) -> serde_json::Value {
    let mut row = json!(found);
    row["path"] = format!("{directory}/{}", found.name).into();
    if let Some(manifest) = &found.manifest {
        row["encrypted"] = manifest.encrypted_to.is_some().into();
        row["instance"] = manifest.instance.clone().into();
        row["release"] = manifest.release.clone().into();
        row["revision"] = manifest.database.revision.clone().into();
        row["server"] = manifest.server.clone().into();
        row["before"] = manifest.before.clone().into();
        row["left_out"] = manifest.database.left_out.clone().into();
        row["tool"] = manifest.tool.clone().into();
        row["tables"] = manifest.database.tables.len().into();
        row["rows"] = manifest.database.rows().into();
    }
    row
}

/// Removes what a rule does not keep, and what was never finished; gives what that was, or would be.
fn prune_backups(site: &Session, rule: Pruning, dry_run: bool) -> Result<Vec<BackupEntry>> {
    let backup = &site.settings().backup;
    let rule = match rule {
        Pruning::Never => None,
        Pruning::FirstOfMonth => Some(Rule::Month),
        Pruning::Generations => Some(Rule::Generations {
            daily: backup.keep_daily.get(),
            weekly: backup.keep_weekly.get(),
            monthly: backup.keep_monthly.get(),
        }),
    };
    let (whole, mut others): (Vec<BackupEntry>, Vec<BackupEntry>) =
        make::list_site_backups(&site.host, site.settings(), &site.layout.slug)?
            .into_iter()
            .partition(|found| found.is_whole(&site.instance));
    // What has the name of a backup and is none is the administrator's to look at.
    others.retain(|found| found.what == BackupKind::Unfinished);
    // What holds replaced data takes no other's place.
    let (replaced, whole): (Vec<BackupEntry>, Vec<BackupEntry>) =
        whole.into_iter().partition(|found| found.before().is_some());
    let beyond = |all: Vec<BackupEntry>, rule| {
        let moments: Vec<OffsetDateTime> = all.iter().map(|found| found.made_at).collect();
        let stays = mark_kept(rule, &moments, OffsetDateTime::now_utc());
        let pairs = all.into_iter().zip(stays);
        pairs.filter_map(|(found, stays)| (!stays).then_some(found))
    };
    let mut gone = others;
    if let Some(rule) = rule {
        gone.extend(beyond(replaced, Rule::Replaced));
        gone.extend(beyond(whole, rule));
    }
    if !dry_run {
        for found in &gone {
            let path = format!("{}/{}", backup.directory.as_str(), found.name);
            if found.what == BackupKind::Backup {
                // In one step: what is half gone has no backup's name any more.
                let unfinished = format!("{path}{}", backup::UNFINISHED);
                site.host.rename(&path, &unfinished)?;
                site.host.remove_tree(&unfinished)?;
            } else {
                site.host.remove_tree(&path)?;
            }
        }
    }
    Ok(gone)
}

fn report_pruned(site: &Session, gone: &[BackupEntry], dry_run: bool) -> Report {
    let freed: u64 = gone.iter().map(|found| found.bytes).sum();
    let report = Report::new(json!({
        "instance": site.instance,
        "dry_run": dry_run,
        "removed": gone.iter().map(|found| &found.name).collect::<Vec<_>>(),
        "bytes": freed,
    }));
    let verb = if dry_run { "would remove" } else { "removed" };
    report
        .with_lines(gone.iter().map(|found| format!("{verb} {}, {} MiB", found.name, format_mib(found.bytes))))
        .with_remark(match gone.is_empty() {
            true => "nothing to remove".to_owned(),
            false => format!("{verb} {} MiB in total", format_mib(freed)),
        })
}
