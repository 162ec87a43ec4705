//! A database whose application account is in somebody else's hands.

use super::booted::Booted;

/// Everything that the server writes down and gives back as a part of a statement, with a statement in it.
const SCHEMA: &str = r#"
mysql --defaults-file=/etc/camcops/camcops.my.cnf camcops <<'END'
ALTER TABLE _server_settings ADD CONSTRAINT hostile CHECK (database_title <> 'a''));GRANT ALL PRIVILEGES ON *.* TO camcops@localhost WITH GRANT OPTION;CREATE TABLE dummy (a int CHECK (a <> ''b');
ALTER TABLE gad7 COMMENT = '\'; GRANT ALL PRIVILEGES ON *.* TO camcops@localhost; -- ';
ALTER TABLE gad7
    ADD COLUMN `x``; DROP DATABASE mysql; -- '\` VARCHAR(200) DEFAULT '\'); GRANT ALL PRIVILEGES ON *.* TO camcops@localhost; -- ',
    ADD COLUMN made VARCHAR(200) AS (CONCAT('a''); GRANT ALL PRIVILEGES ON *.* TO camcops@localhost; -- \\', q1)) VIRTUAL;
CREATE TABLE `t``; DROP DATABASE mysql; -- ''\` (`a``b` INT PRIMARY KEY, c VARCHAR(20) DEFAULT 'x''\\');
INSERT INTO `t``; DROP DATABASE mysql; -- ''\` VALUES (1, 'y');
END
"#;

/// What no hostile table may change.
const RIGHTS: &str = "mysql --skip-column-names --execute \"SHOW GRANTS FOR camcops@localhost; SELECT User, Host FROM mysql.user ORDER BY User, Host; SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_NAME = 'dummy'; SELECT COUNT(*) FROM mysql.db\"";

/// Who may do what.
pub fn rights(machine: &Booted) -> String {
    machine.run(RIGHTS)
}

/// Makes the tables hostile, as the application; gives who may do what.
pub fn make_hostile(machine: &Booted) -> String {
    let before = rights(machine);
    machine.run(SCHEMA);
    assert_eq!(rights(machine), before);
    before
}
