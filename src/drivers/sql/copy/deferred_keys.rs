//! The keys of a table that is to be filled are made faster once all of its rows are there.

use memchr::memmem;

const CREATE: &[u8] = b"CREATE TABLE `";
/// Behind the columns and the keys of a table come its own properties.
const END: &[u8] = b"\n) ";
/// A table whose rows are found by none but these could have a column that counts by itself and needs one of them.
const PRIMARY: &str = "  PRIMARY KEY (";
/// How the lines of those begin that can wait.
const LATER: [&str; 2] = ["  KEY `", "  CONSTRAINT `"];

/// Whether the statement that makes a table is at its end here.
pub(crate) fn is_whole(text: &[u8]) -> bool {
    find_columns(text).is_some()
}

/// Where the columns and keys of a table are.
fn find_columns(text: &[u8]) -> Option<(usize, usize)> {
    let begin = memmem::find(text, CREATE)?;
    let end = memmem::find(&text[begin..], END)?;
    Some((begin, begin + end))
}

/// Takes the keys that can wait out of the statement that makes a table; gives the text without them, and the statement
/// that makes them, in the same order and by the same names.
pub(crate) fn split_keys(text: &[u8]) -> Option<(Vec<u8>, String)> {
    let (begin, end) = find_columns(text)?;
    let lines = std::str::from_utf8(&text[begin..end]).ok()?;
    let (first, lines) = lines.split_once('\n')?;
    let name = first.strip_prefix("CREATE TABLE ")?.strip_suffix(" (")?;
    let is_later = |line: &&str| LATER.iter().any(|begin| line.starts_with(begin));
    let (later, now): (Vec<&str>, Vec<&str>) = lines.lines().partition(is_later);
    if later.is_empty() || !now.iter().any(|line| line.starts_with(PRIMARY)) {
        return None;
    }
    let bare = |lines: Vec<&str>, before: &str| {
        let lines = lines.iter().map(|line| line.trim_end_matches(','));
        let lines: Vec<String> = lines.map(|line| format!("{before}{line}")).collect();
        lines.join(",\n")
    };
    let mut without = text[..begin].to_vec();
    without.extend_from_slice(format!("{first}\n{}", bare(now, "")).as_bytes());
    without.extend_from_slice(&text[end..]);
    let statement = format!("ALTER TABLE {name}\n{};\n", bare(later, "ADD"));
    Some((without, statement))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "--\n-- Table structure for table `a``b`\n--\n\nCREATE TABLE `a``b` (\n  `_pk` int(11) NOT NULL AUTO_INCREMENT COMMENT 'it''s KEY `x`, (1)',\n  `KEY` text DEFAULT NULL,\n  PRIMARY KEY (`_pk`),\n  UNIQUE KEY `u` (`KEY`),\n  KEY `k` (`_pk`,`KEY`(10)),\n  CONSTRAINT `f` FOREIGN KEY (`_pk`) REFERENCES `c` (`id`)\n) ENGINE=InnoDB;\nINSERT INTO `a``b` VALUES\n(1,'x');\n";

    #[test]
    fn keys_wait_and_nothing_else_does() {
        let (without, statement) = split_keys(TABLE.as_bytes()).unwrap();
        let held = "  KEY `k` (`_pk`,`KEY`(10)),\n  CONSTRAINT `f` FOREIGN KEY (`_pk`) REFERENCES `c` (`id`)\n";
        let expected = TABLE.replace(held, "").replace("(`KEY`),\n)", "(`KEY`)\n)");
        assert_eq!(String::from_utf8(without).unwrap(), expected);
        assert_eq!(
            statement,
            "ALTER TABLE `a``b`\nADD  KEY `k` (`_pk`,`KEY`(10)),\nADD  CONSTRAINT `f` FOREIGN KEY (`_pk`) REFERENCES `c` (`id`);\n"
        );
    }

    #[test]
    fn what_can_not_wait_stays() {
        let without_primary = TABLE.replace("  PRIMARY KEY (`_pk`),\n", "");
        let cut = &TABLE[..TABLE.find(") ENGINE").unwrap()];
        for text in [without_primary.as_str(), cut, "INSERT INTO `x` VALUES (1);\n"] {
            assert_eq!(split_keys(text.as_bytes()), None, "{text}");
        }
        assert!(is_whole(TABLE.as_bytes()) && !is_whole(cut.as_bytes()));
    }
}
