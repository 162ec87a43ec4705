//! Names and texts as parts of a statement. There is no other way for a value to get into one: accounts and grants can't
//! be parameters of a prepared statement in either family of servers.
//!
//! Texts are quoted for a session with `NO_BACKSLASH_ESCAPES`, which the server module switches on: there a quote that is
//! doubled is the whole of the rule.

pub(crate) fn quote_text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// The name of a database, a table, a column or a role.
pub(crate) fn quote_name(value: &str) -> String {
    format!("`{}`", value.replace('`', "``"))
}

pub(crate) fn quote_table(database: &str, table: &str) -> String {
    format!("{}.{}", quote_name(database), quote_name(table))
}

pub(crate) fn quote_account(user: &str, host: &str) -> String {
    format!("{}@{}", quote_text(user), quote_text(host))
}

/// The database of this name and no other: grants read `_` and `%` as wildcards.
pub(crate) fn quote_pattern(database: &str) -> String {
    let mut pattern = String::with_capacity(database.len() + 4);
    for letter in database.chars() {
        if matches!(letter, '_' | '%' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

/// Whether a pattern of a grant includes a database.
pub(crate) fn pattern_includes(pattern: &str, database: &str) -> bool {
    let (mut pattern_left, mut left) = (pattern.chars(), database.chars());
    let rest = pattern_left.clone();
    match pattern_left.next() {
        None => database.is_empty(),
        Some('%') => {
            let rest = pattern_left.as_str();
            (0..=database.len())
                .filter(|at| database.is_char_boundary(*at))
                .any(|at| pattern_includes(rest, &database[at..]))
        }
        Some('_') => left.next().is_some() && pattern_includes(pattern_left.as_str(), left.as_str()),
        Some(letter) => {
            let mut literal = rest;
            let mut wanted = letter;
            literal.next();
            if letter == '\\'
                && let Some(escaped) = literal.clone().next()
            {
                wanted = escaped;
                literal.next();
            }
            left.next() == Some(wanted) && pattern_includes(literal.as_str(), left.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(quote_text(r"it's \ here"), r"'it''s \ here'");
        assert_eq!(quote_name("a`b"), "`a``b`");
        assert_eq!(quote_account("o'hara", "%"), "'o''hara'@'%'");
        assert_eq!(quote_pattern("camcops_two"), r"camcops\_two");
    }

    #[test]
    fn patterns_of_grants_are_understood() {
        for (pattern, database, expected) in [
            ("camcops", "camcops", true),
            ("camcops", "camcops_two", false),
            ("camcops_two", "camcopsxtwo", true),
            (r"camcops\_two", "camcopsxtwo", false),
            (r"camcops\_two", "camcops_two", true),
            ("camcops%", "camcops_two", true),
            ("%", "anything", true),
            ("%two", "camcops_two", true),
            ("", "", true),
        ] {
            assert_eq!(pattern_includes(pattern, database), expected, "{pattern} {database}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_ends_where_it_should(value in "\\PC{0,40}") {
            // Read back as the server does: pairs of quotes are one quote, and a single one ends it.
            let quoted = quote_text(&value);
            let inner = &quoted[1..quoted.len() - 1];
            prop_assert!(!inner.replace("''", "").contains('\''));
            prop_assert_eq!(inner.replace("''", "'"), value);
        }

        #[test]
        fn a_database_is_in_its_own_pattern_and_no_other_is(one in "[a-z_%]{1,8}", other in "[a-z_%]{1,8}") {
            prop_assert!(pattern_includes(&quote_pattern(&one), &one));
            prop_assert_eq!(pattern_includes(&quote_pattern(&one), &other), one == other);
        }
    }
}
