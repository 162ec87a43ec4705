//! Where exports of recipients go: the merged configuration tells.

use super::Draft;
use crate::camcops_conf::Ini;
use crate::layout::is_hidden;
use crate::resource::{Facets, Part, Resource};
use std::collections::BTreeSet;

/// The folders that recipients in use have files written to: the part of the name before anything variable.
pub(crate) fn list_folders(config: &Ini) -> BTreeSet<String> {
    let names = config.get("export", "RECIPIENTS").unwrap_or_default();
    let folder = |name: &str| {
        let value = |key| config.get(&format!("recipient:{name}"), key).unwrap_or_default();
        let by_file = value("TRANSMISSION_METHOD").trim().eq_ignore_ascii_case("file");
        fixed_folder(&value("FILE_FILENAME_SPEC")).filter(|_| by_file)
    };
    names.lines().map(str::trim).filter(|name| !name.is_empty()).filter_map(folder).collect()
}

/// The folder of a name with variable parts in braces.
fn fixed_folder(spec: &str) -> Option<String> {
    let fixed = spec.split('{').next().unwrap_or_default();
    let (folder, _) = fixed.rsplit_once('/')?;
    let is_plain = !folder.split('/').skip(1).any(|part| matches!(part, "" | "." | ".."));
    (folder.starts_with('/') && folder.len() > 1 && is_plain).then(|| folder.to_owned())
}

impl Draft<'_> {
    /// The folders are made for the account of the services; those that are there stay as they are.
    pub(super) fn export_folders(&mut self, config: &Ini) {
        let (hidden, seen): (Vec<_>, Vec<_>) = list_folders(config).into_iter().partition(|folder| is_hidden(folder));
        for folder in hidden {
            self.recipe.warnings.push(format!(
                    "exports to {folder}: services see a private directory or none there, so the files would not be visible outside; choose another folder in FILE_FILENAME_SPEC, such as /srv/exports"
                ));
        }
        for folder in &seen {
            let is_there = matches!(self.host.look_into(folder), Ok(Some(_)));
            let facets = match is_there {
                true => Facets::new(),
                false => self.owned(Facets::new().with("type", "directory"), crate::layout::Whose::Service, "0750"),
            };
            self.want(
                Resource::Directory(folder.clone()),
                facets,
                Part::Configuration,
                "exports of a recipient are written there",
            );
        }
        self.export_folders = seen;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "[export]\nRECIPIENTS =\n    archive\n    other\n    far\n\
        [recipient:archive]\nTRANSMISSION_METHOD = FILE\nFILE_FILENAME_SPEC = /srv/a/b/{patient}.{filetype}\n\
        [recipient:other]\nTRANSMISSION_METHOD = file\nFILE_FILENAME_SPEC = {patient}\n\
        [recipient:far]\nTRANSMISSION_METHOD = hl7\nFILE_FILENAME_SPEC = /srv/far/{patient}\n\
        [recipient:unused]\nTRANSMISSION_METHOD = file\nFILE_FILENAME_SPEC = /srv/unused/{patient}\n";

    #[test]
    fn folders_are_those_of_recipients_in_use() {
        assert_eq!(list_folders(&Ini::parse(CONFIG)), BTreeSet::from(["/srv/a/b".into()]));
    }

    #[test]
    fn a_folder_ends_before_what_varies() {
        for (spec, folder) in [
            ("/srv/x/{patient}/{filetype}", Some("/srv/x")),
            ("/srv/x/all_{patient}", Some("/srv/x")),
            ("/{patient}", None),
            ("srv/{patient}", None),
            ("/srv/../etc/{patient}", None),
            ("/srv//x/{patient}", None),
        ] {
            assert_eq!(fixed_folder(spec).as_deref(), folder, "{spec}");
        }
    }
}
