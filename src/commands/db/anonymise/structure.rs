//! The empty tables of a copy. What the server has written down of a table is never read as a statement: whoever may
//! make tables could have written it.

use super::quoted_table;
use crate::drivers::sql::{Database, quote};
use anyhow::Result;
use std::collections::BTreeMap;

/// What a key does when what it refers to changes or goes.
const RULES: [&str; 5] = ["RESTRICT", "NO ACTION", "CASCADE", "SET NULL", "SET DEFAULT"];

/// A key of a table that refers to another table of the same database.
#[derive(Debug, Default)]
struct ForeignKey {
    name: String,
    columns: Vec<String>,
    refers_to: String,
    referred: Vec<String>,
    /// On update, on delete.
    rules: Option<(String, String)>,
}

/// Makes tables like those of the site in the database beside, with the keys that refer from one of them to another.
pub(super) async fn make_structure(known: &Database, beside: &str, tables: &[&String]) -> Result<()> {
    let mut keys = foreign_keys(known).await?;
    for table in tables {
        let (new, old) = (quoted_table(beside, table), quoted_table(&known.database, table));
        let like = format!("CREATE TABLE {new} LIKE {old}");
        known.server.change(&like).await?;
    }
    for table in tables {
        let mut keys = keys.remove(table.as_str()).unwrap_or_default();
        keys.retain(|key| tables.iter().any(|table| **table == key.refers_to));
        let added: Vec<String> = keys.iter().map(|key| key.added(beside)).collect();
        if !added.is_empty() {
            let added = format!("ALTER TABLE {} {}", quoted_table(beside, table), added.join(", "));
            known.server.change(&added).await?;
        }
    }
    Ok(())
}

/// The keys of each table.
async fn foreign_keys(known: &Database) -> Result<BTreeMap<String, Vec<ForeignKey>>> {
    let (server, database) = (&known.server, quote::quote_text(&known.database));
    let rows: Vec<(String, String, String, String, String)> = server
        .rows(&format!(
            "SELECT TABLE_NAME, CONSTRAINT_NAME, COLUMN_NAME, REFERENCED_TABLE_NAME, REFERENCED_COLUMN_NAME FROM information_schema.KEY_COLUMN_USAGE \
             WHERE TABLE_SCHEMA = {database} AND REFERENCED_TABLE_SCHEMA = {database} ORDER BY TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION"
        ))
        .await?;
    let rules: Vec<(String, String, String, String)> = server
        .rows(&format!(
            "SELECT TABLE_NAME, CONSTRAINT_NAME, UPDATE_RULE, DELETE_RULE FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = {database}"
        ))
        .await?;
    let is_rule = |rule: &String| RULES.contains(&rule.as_str());
    let mut rules: BTreeMap<(String, String), (String, String)> = rules
        .into_iter()
        .filter(|(_, _, update, delete)| is_rule(update) && is_rule(delete))
        .map(|(table, name, update, delete)| ((table, name), (update, delete)))
        .collect();
    let mut keys: BTreeMap<String, Vec<ForeignKey>> = BTreeMap::new();
    for (table, name, column, refers_to, referred) in rows {
        let of_table = keys.entry(table.clone()).or_default();
        if of_table.last().is_none_or(|last| last.name != name) {
            of_table.push(ForeignKey {
                rules: rules.remove(&(table, name.clone())),
                name,
                refers_to,
                ..ForeignKey::default()
            });
        }
        if let Some(key) = of_table.last_mut() {
            key.columns.push(column);
            key.referred.push(referred);
        }
    }
    Ok(keys)
}

impl ForeignKey {
    fn added(&self, database: &str) -> String {
        let names = |names: &[String]| {
            let names: Vec<String> = names.iter().map(|name| quote::quote_name(name)).collect();
            names.join(", ")
        };
        let rules = self
            .rules
            .as_ref()
            .map_or_else(String::new, |rules| format!(" ON UPDATE {} ON DELETE {}", rules.0, rules.1));
        format!(
            "ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}){rules}",
            quote::quote_name(&self.name),
            names(&self.columns),
            quoted_table(database, &self.refers_to),
            names(&self.referred),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_names() {
        let key = ForeignKey {
            name: "k`; DROP TABLE x".into(),
            columns: vec!["a`b".into(), "c".into()],
            refers_to: "t`".into(),
            referred: vec!["id".into(), "no".into()],
            rules: Some(("CASCADE".into(), "SET NULL".into())),
        };
        assert_eq!(
            key.added("copy"),
            "ADD CONSTRAINT `k``; DROP TABLE x` FOREIGN KEY (`a``b`, `c`) REFERENCES `copy`.`t``` (`id`, `no`) ON UPDATE CASCADE ON DELETE SET NULL"
        );
    }
}
