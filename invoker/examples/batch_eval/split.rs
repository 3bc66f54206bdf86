//! Splits the ratings of each user into a training and a held-out part, by a seed.

use crate::csr::Csr;
use crate::ratings::Ratings;

/// Ratings by user, in two parts.
#[derive(Debug, Clone)]
pub(crate) struct Split {
    /// The ratings that the model is trained on.
    pub(crate) train: Csr,
    /// The ratings that recommendations are judged by. Users with too few ratings have empty rows.
    pub(crate) held_out: Csr,
}

/// Holds out `fraction` of each user's ratings, chosen at random.
///
/// Of a user's `n` ratings, `fraction * n` rounded to the nearest whole number are held out (halves up), but
/// at least one stays in training. The choice depends only on the seed, the user's id and the user's rated items: neither on
/// other users, nor on the order of the file.
pub(crate) fn hold_out(ratings: &Ratings, fraction: f64, seed: u64) -> Split {
    let parts: Vec<_> = ratings
        .users
        .iter()
        .zip(&ratings.by_user)
        .map(|(&user, row)| {
            let held_out = choose(row.len(), fraction, seed, user);
            let part = |wanted: bool| -> Vec<(u32, f64)> {
                row.iter()
                    .zip(&held_out)
                    .filter(|(_, h)| **h == wanted)
                    .map(|(entry, _)| *entry)
                    .collect()
            };
            (part(false), part(true))
        })
        .collect();
    let (train, held_out): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    Split {
        train: Csr::from_rows(train),
        held_out: Csr::from_rows(held_out),
    }
}

/// Keeps all ratings in training.
pub(crate) fn keep_all(ratings: &Ratings) -> Split {
    Split {
        train: Csr::from_rows(ratings.by_user.iter().map(|row| row.iter().copied())),
        held_out: Csr::from_rows(ratings.by_user.iter().map(|_| [])),
    }
}

/// Returns which of a user's `n` ratings are held out: the first positions of a Fisher-Yates shuffle.
fn choose(n: usize, fraction: f64, seed: u64, user: u32) -> Vec<bool> {
    let wanted = ((n as f64 * fraction).round() as usize).min(n.saturating_sub(1));
    let mut random = SplitMix64::of_user(seed, user);
    let mut positions: Vec<usize> = (0..n).collect();
    let mut chosen = vec![false; n];
    for i in 0..wanted {
        positions.swap(i, i + random.below((n - i) as u64) as usize);
        chosen[positions[i]] = true;
    }
    chosen
}

/// SplitMix64: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014,
/// with the constants of S. Vigna's `splitmix64.c`.
struct SplitMix64(u64);

impl SplitMix64 {
    /// Creates the generator of one user. Seed and id are both mixed, so that neighbouring values are unrelated.
    fn of_user(seed: u64, user: u32) -> Self {
        Self(mix(seed ^ mix(u64::from(user))))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Returns a uniformly distributed number below `bound`: D. Lemire, "Fast random integer generation in an
    /// interval", ACM TOMACS 29(1), 2019.
    fn below(&mut self, bound: u64) -> u64 {
        let rejected_below = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next()) * u128::from(bound);
            if product as u64 >= rejected_below {
                return (product >> 64) as u64;
            }
        }
    }
}

/// The finalizer of SplitMix64: a bijection of 64 bits.
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratings(counts: &[(u32, u32)]) -> Ratings {
        Ratings {
            users: counts.iter().map(|(user, _)| *user).collect(),
            items: (0..counts.iter().map(|(_, n)| *n).max().unwrap_or(0)).collect(),
            by_user: counts
                .iter()
                .map(|(_, n)| (0..*n).map(|i| (i, f64::from(i))).collect())
                .collect(),
        }
    }

    #[test]
    fn the_generator_returns_the_published_sequence() {
        let mut random = SplitMix64(1_234_567);
        let first: Vec<u64> = (0..5).map(|_| random.next()).collect();
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821
            ]
        );
    }

    #[test]
    fn bounded_numbers_are_about_equally_frequent() {
        let mut random = SplitMix64(1);
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[random.below(7) as usize] += 1;
        }
        // Five standard deviations of a binomial with n = 70,000 and p = 1/7.
        assert!(counts.iter().all(|c| c.abs_diff(10_000) < 463), "{counts:?}");
    }

    #[test]
    fn the_parts_are_disjoint_complete_and_of_the_right_size() {
        let all = ratings(&[(1, 100), (2, 1), (3, 2), (4, 3), (5, 7)]);
        let split = hold_out(&all, 0.2, 42);
        let sizes: Vec<usize> = (0..5).map(|u| split.held_out.row(u).0.len()).collect();
        assert_eq!(sizes, [20, 0, 0, 1, 1]);
        for user in 0..5 {
            let mut items = [split.train.row(user).0, split.held_out.row(user).0].concat();
            items.sort_unstable();
            assert_eq!(items, (0..all.by_user[user].len() as u32).collect::<Vec<_>>());
            assert!(split.train.row(user).0.is_sorted() && split.held_out.row(user).0.is_sorted());
        }
    }

    #[test]
    fn one_rating_always_stays_in_training() {
        let split = hold_out(&ratings(&[(1, 1), (2, 2), (3, 50)]), 0.999, 0);
        assert_eq!(
            (0..3).map(|u| split.train.row(u).0.len()).collect::<Vec<_>>(),
            [1, 1, 1]
        );
    }

    #[test]
    fn the_split_of_a_user_depends_only_on_seed_and_user() {
        let alone = hold_out(&ratings(&[(9, 40)]), 0.25, 7);
        let among = hold_out(&ratings(&[(3, 10), (9, 40), (12, 5)]), 0.25, 7);
        assert_eq!(alone.held_out.row(0), among.held_out.row(1));
        assert_ne!(
            alone.held_out.row(0),
            hold_out(&ratings(&[(9, 40)]), 0.25, 8).held_out.row(0)
        );
        assert_ne!(
            alone.held_out.row(0),
            hold_out(&ratings(&[(10, 40)]), 0.25, 7).held_out.row(0)
        );
    }

    #[test]
    fn the_split_of_a_seed_never_changes() {
        // From an implementation in another language: all published numbers depend on it.
        let chosen = choose(20, 0.2, 42, 1);
        let positions: Vec<usize> = (0..20).filter(|position| chosen[*position]).collect();
        assert_eq!(positions, [3, 4, 7, 11]);
    }

    #[test]
    fn keep_all_holds_out_no_rating() {
        let split = keep_all(&ratings(&[(1, 3), (2, 4)]));
        assert_eq!((split.train.entries(), split.held_out.entries()), (7, 0));
        assert_eq!((split.train.rows(), split.held_out.rows()), (2, 2));
    }
}
