//! The folders that recipients export files to.

use super::{Finding, Look};
use crate::camcops_conf::Ini;
use crate::layout::is_hidden;
use crate::recipe::list_folders;
use anyhow::Result;

pub(crate) fn check_folders(look: &Look<'_>) -> Result<Vec<Finding>> {
    let site = look.site;
    let config = site.host.read_text(&site.layout.config)?.unwrap_or_default();
    let folders = list_folders(&Ini::parse(&config));
    if folders.is_empty() {
        return Ok(vec![Finding::not_applicable("no recipient exports files")]);
    }
    let account = site.account();
    let accounts = &site.host.accounts;
    let Some((user, group)) = accounts.uid(account).zip(accounts.gid(account)) else {
        return Ok(vec![Finding::for_install(format!("this machine has no account {account}"))]);
    };
    let mut findings = Vec::new();
    for folder in folders {
        if is_hidden(&folder) {
            findings.push(Finding::failed(
                format!("{folder}: the services have no access to this directory"),
                "camcops-provision config edit",
            ));
            continue;
        }
        if site.host.look_into(&folder)?.is_none() {
            findings.push(Finding::for_install(format!(
                "{folder} does not exist, or is reached by a link that other accounts can change"
            )));
            continue;
        }
        // With the groups that the services have, too.
        let asked = site
            .host
            .child_apart("setpriv")
            .args([format!("--reuid={user}"), format!("--regid={group}")])
            .args(["--init-groups", "--", "test", "-w", &folder])
            .end()?;
        let is_writable = asked.status.success();
        findings.push(match is_writable {
            true => Finding::ok(format!("{account} can write to {folder}")),
            false => Finding::failed(
                format!("{folder}: the services' account {account} cannot write to it"),
                format!("chown {account}: {folder}"),
            ),
        });
    }
    Ok(findings)
}
