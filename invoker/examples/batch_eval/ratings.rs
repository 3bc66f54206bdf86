//! Reads a MovieLens ratings file into a table of ratings by user. Errors name the line.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The October 2016 edition of MovieLens `ml-latest-small` (Harper and Konstan 2015,
/// doi:10.1145/2827872), under the terms of the `README.txt` beside it.
const BUNDLED: &[u8] = include_bytes!("data/ml-latest-small-2016/ratings.csv");

/// The first line of a ratings file.
const HEADER: &str = "userId,movieId,rating,timestamp";

/// All ratings, grouped by user. Users and items are addressed by their position in the sorted id tables.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ratings {
    /// User ids, ascending.
    pub(crate) users: Vec<u32>,
    /// Item (movie) ids, ascending.
    pub(crate) items: Vec<u32>,
    /// For each user, in the order of `users`: (item position, rating), items ascending.
    pub(crate) by_user: Vec<Vec<(u32, f64)>>,
}

/// The error of reading a ratings file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RatingsError {
    /// The file could not be opened or read.
    #[error(
        "cannot read ratings file `{}`: {source}; check the path, or leave --ratings out to use the bundled ratings",
        path.display()
    )]
    Read { path: PathBuf, source: io::Error },
    /// The file is empty, or has only a header.
    #[error("ratings file `{}` has no ratings; it needs the header `{HEADER}` and a row per rating", path.display())]
    Empty { path: PathBuf },
    /// A line is invalid.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        path: PathBuf,
        line: u64,
        problem: LineProblem,
    },
}

/// The problem of a line.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LineProblem {
    #[error("the first line is not the header; put `{HEADER}` there")]
    Header,
    #[error("the line is not UTF-8 text; save the file as UTF-8")]
    Encoding,
    #[error("the line is empty; remove it")]
    Blank,
    #[error("{found} fields instead of 4; a row is `{HEADER}`")]
    Fields { found: usize },
    #[error("{field} `{text}` is not {expected}; fix or remove the row")]
    Value {
        field: &'static str,
        text: String,
        expected: &'static str,
    },
    #[error("user {user} has rated movie {item} on line {first} already; keep one of the two rows")]
    Duplicate { user: u32, item: u32, first: u64 },
}

/// One row of the file.
struct Row {
    user: u32,
    item: u32,
    rating: f64,
    line: u64,
}

impl Ratings {
    /// Returns the ratings that are built into this program.
    pub(crate) fn bundled() -> Result<Self, RatingsError> {
        Self::parse(BUNDLED, Path::new("bundled ratings.csv"))
    }

    /// Reads a ratings file: UTF-8, with or without a byte order mark, LF or CRLF line ends.
    ///
    /// # Errors
    /// If the file cannot be read, is empty, or has an invalid or a repeated line.
    pub(crate) fn read(path: &Path) -> Result<Self, RatingsError> {
        let file = File::open(path).map_err(|source| RatingsError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(BufReader::new(file), path)
    }

    /// Returns the number of ratings.
    pub(crate) fn len(&self) -> usize {
        self.by_user.iter().map(Vec::len).sum()
    }

    fn parse(mut input: impl BufRead, path: &Path) -> Result<Self, RatingsError> {
        let at = |line, problem| RatingsError::Line {
            path: path.to_owned(),
            line,
            problem,
        };
        let mut rows = Vec::new();
        let mut blank = None;
        let mut bytes = Vec::new();
        for line in 1_u64.. {
            bytes.clear();
            let read = input
                .read_until(b'\n', &mut bytes)
                .map_err(|source| RatingsError::Read {
                    path: path.to_owned(),
                    source,
                })?;
            if read == 0 {
                break;
            }
            let text = str::from_utf8(&bytes).map_err(|_| at(line, LineProblem::Encoding))?;
            let text = text.strip_suffix('\n').unwrap_or(text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            // Empty lines are valid only at the end of the file.
            if let Some(blank) = blank.filter(|_| !text.is_empty()) {
                return Err(at(blank, LineProblem::Blank));
            }
            if line == 1 {
                let header = text.strip_prefix('\u{feff}').unwrap_or(text);
                match header {
                    HEADER => {}
                    "" => blank = Some(line),
                    _ => return Err(at(line, LineProblem::Header)),
                }
            } else if text.is_empty() {
                blank.get_or_insert(line);
            } else {
                rows.push(Row::parse(text, line).map_err(|problem| at(line, problem))?);
            }
        }
        if rows.is_empty() {
            return Err(RatingsError::Empty {
                path: path.to_owned(),
            });
        }
        Self::from_rows(rows).map_err(|(line, problem)| at(line, problem))
    }

    fn from_rows(mut rows: Vec<Row>) -> Result<Self, (u64, LineProblem)> {
        rows.sort_unstable_by_key(|row| (row.user, row.item, row.line));
        let mut items: Vec<u32> = rows.iter().map(|row| row.item).collect();
        items.sort_unstable();
        items.dedup();

        let mut users = Vec::new();
        let mut by_user = Vec::new();
        for of_user in rows.chunk_by(|a, b| a.user == b.user) {
            if let Some(pair) = of_user.windows(2).find(|pair| pair[0].item == pair[1].item) {
                let Row { user, item, .. } = pair[1];
                return Err((
                    pair[1].line,
                    LineProblem::Duplicate {
                        user,
                        item,
                        first: pair[0].line,
                    },
                ));
            }
            users.push(of_user[0].user);
            let position = |item| items.binary_search(&item).expect("every item is in the table") as u32;
            by_user.push(
                of_user
                    .iter()
                    .map(|row| (position(row.item), row.rating))
                    .collect(),
            );
        }
        Ok(Self {
            users,
            items,
            by_user,
        })
    }
}

impl Row {
    fn parse(text: &str, line: u64) -> Result<Self, LineProblem> {
        let fields: Vec<&str> = text.split(',').collect();
        let [user, item, rating, timestamp] = fields[..] else {
            return Err(LineProblem::Fields { found: fields.len() });
        };
        let user = value(user, "userId", "a whole number from 0 to 4294967295")?;
        let item = value(item, "movieId", "a whole number from 0 to 4294967295")?;
        let text = rating;
        let rating: f64 = value(rating, "rating", "a number")?;
        if !rating.is_finite() {
            let text = text.to_owned();
            return Err(LineProblem::Value {
                field: "rating",
                text,
                expected: "a finite number",
            });
        }
        value::<i64>(timestamp, "timestamp", "a whole number of seconds")?;
        Ok(Self {
            user,
            item,
            rating,
            line,
        })
    }
}

fn value<T: FromStr>(text: &str, field: &'static str, expected: &'static str) -> Result<T, LineProblem> {
    text.trim().parse().map_err(|_| LineProblem::Value {
        field,
        text: text.escape_debug().to_string(),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Ratings, String> {
        Ratings::parse(text.as_bytes(), Path::new("r.csv")).map_err(|e| e.to_string())
    }

    #[test]
    fn rows_are_grouped_by_user_and_sorted() {
        let ratings = parse("userId,movieId,rating,timestamp\n7,30,4.5,1\n2,30,1,2\n7,10,0.5,3\n").unwrap();
        assert_eq!(ratings.users, [2, 7]);
        assert_eq!(ratings.items, [10, 30]);
        assert_eq!(ratings.by_user, [vec![(1, 1.0)], vec![(0, 0.5), (1, 4.5)]]);
        assert_eq!(ratings.len(), 3);
    }

    #[test]
    fn crlf_byte_order_mark_and_trailing_empty_lines_are_ignored() {
        let plain = parse("userId,movieId,rating,timestamp\n1,2,3.0,4\n").unwrap();
        for text in [
            "userId,movieId,rating,timestamp\r\n1,2,3.0,4\r\n",
            "\u{feff}userId,movieId,rating,timestamp\n1,2,3.0,4",
            "userId,movieId,rating,timestamp\n1,2,3.0,4\n\r\n\n",
        ] {
            assert_eq!(parse(text).as_ref(), Ok(&plain), "{text:?}");
        }
    }

    #[test]
    fn the_error_of_an_invalid_line_has_its_number_and_the_remedy() {
        let h = "userId,movieId,rating,timestamp\n1,2,3.0,4\n";
        for (text, error) in [
            (
                "1,2,3.0,4\n".to_owned(),
                "r.csv:1: the first line is not the header",
            ),
            (format!("{h}1,3,3.0\n"), "r.csv:3: 3 fields instead of 4"),
            (format!("{h}1,3,3.0,4,5\n"), "r.csv:3: 5 fields instead of 4"),
            (
                format!("{h}bob,3,3.0,4\n"),
                "r.csv:3: userId `bob` is not a whole number",
            ),
            (
                format!("{h}-1,3,3.0,4\n"),
                "r.csv:3: userId `-1` is not a whole number",
            ),
            (
                format!("{h}1,4294967296,3.0,4\n"),
                "r.csv:3: movieId `4294967296` is not a whole number",
            ),
            (
                format!("{h}1,3,good,4\n"),
                "r.csv:3: rating `good` is not a number",
            ),
            (format!("{h}1,3,,4\n"), "r.csv:3: rating `` is not a number"),
            (
                format!("{h}1,3,NaN,4\n"),
                "r.csv:3: rating `NaN` is not a finite number",
            ),
            (
                format!("{h}1,3,inf,4\n"),
                "r.csv:3: rating `inf` is not a finite number",
            ),
            (
                format!("{h}1,3,1e999,4\n"),
                "r.csv:3: rating `1e999` is not a finite number",
            ),
            (format!("{h}1,3,3.0,now\n"), "r.csv:3: timestamp `now` is not"),
            (format!("{h}\n\n1,3,3.0,4\n"), "r.csv:3: the line is empty"),
            (
                format!("{h}2,2,1,4\n1,2,5,4\n"),
                "r.csv:4: user 1 has rated movie 2 on line 2 already",
            ),
        ] {
            let message = parse(&text).unwrap_err();
            assert!(message.starts_with(error), "{message}");
            assert!(!message.contains('\n'));
        }
    }

    #[test]
    fn control_characters_of_a_field_are_escaped() {
        let message = parse("userId,movieId,rating,timestamp\n\u{1b}[2J,2,3.0,4\n").unwrap_err();
        assert!(message.contains(r"\u{1b}[2J"), "{message}");
    }

    #[test]
    fn a_line_that_is_not_utf8_is_an_error() {
        let error = Ratings::parse(
            &b"userId,movieId,rating,timestamp\n\xff,2,3,4\n"[..],
            Path::new("r.csv"),
        );
        assert!(
            error
                .unwrap_err()
                .to_string()
                .starts_with("r.csv:2: the line is not UTF-8")
        );
    }

    #[test]
    fn a_file_without_ratings_is_an_error() {
        for text in ["", "\n\n", "userId,movieId,rating,timestamp\n", "\u{feff}"] {
            assert!(
                parse(text)
                    .unwrap_err()
                    .starts_with("ratings file `r.csv` has no ratings"),
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_error_of_a_missing_file_has_its_path_and_the_cause() {
        let error = Ratings::read(Path::new("no/such/file.csv")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot read ratings file `no/such/file.csv`: ")
        );
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn the_bundled_ratings_are_the_october_2016_edition() {
        let ratings = Ratings::bundled().unwrap();
        assert_eq!(
            (ratings.len(), ratings.users.len(), ratings.items.len()),
            (100_004, 671, 9_066)
        );
    }
}
