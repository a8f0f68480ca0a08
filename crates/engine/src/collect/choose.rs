//! Which blocks go, and which are worth emptying: pure arithmetic over what marking found.

use diaspore_block::id::BlockId;
use diaspore_policy::Price;

/// What is asked of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Share of dead bytes, in a thousand, from which a block is worth emptying if that pays.
    pub(crate) dead_permille: u64,
    /// Most dead bytes, in a thousand of all, that may stay whatever it costs.
    pub(crate) most_dead_permille: Option<u64>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { dead_permille: 500, most_dead_permille: None }
    }
}

/// Months that freed bytes count for when they are weighed against moving what is left.
const HORIZON_MONTHS: u64 = 6;
/// Blocks emptied in one collection; the next goes on.
const MOST_EMPTIED: usize = 1 << 14;

/// A block that could go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) id: BlockId,
    /// Bytes of chunks in it, as stored.
    pub(crate) held: u64,
    /// Those of live ones.
    pub(crate) live: u64,
    /// Bytes at all providers together.
    pub(crate) stored: u64,
    pub(crate) k: u8,
    pub(crate) n: u8,
}

/// Requests, bytes and micro-dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cost {
    /// Objects written, and listings.
    pub writes: u64,
    /// Objects read or asked for.
    pub reads: u64,
    /// Objects deleted; free at most clouds.
    pub deletes: u64,
    /// Bytes sent by providers.
    pub bytes_read: u64,
    /// Bytes sent to providers.
    pub bytes_written: u64,
    /// List price of all that, in micro-dollars.
    pub microdollars: u64,
}

impl Cost {
    /// Adds another.
    pub(crate) fn add(&mut self, other: &Self) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.deletes += other.deletes;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.microdollars = self.microdollars.saturating_add(other.microdollars);
    }

    pub(crate) fn priced(mut self, price: &Price) -> Self {
        self.microdollars = price.requests(self.writes, self.reads).saturating_add(price.egress(self.bytes_read));
        self
    }
}

/// The mean of the accounts' prices, figure by figure.
pub(crate) fn mean(prices: &[&Price]) -> Price {
    let count = (prices.len() as u64).max(1);
    let of = |figure: fn(&Price) -> u64| prices.iter().map(|price| figure(price)).sum::<u64>() / count;
    Price {
        storage_gb_month: of(|price| price.storage_gb_month),
        write_million: of(|price| price.write_million),
        read_million: of(|price| price.read_million),
        egress_gb: of(|price| price.egress_gb),
        ..Price::default()
    }
}

impl Block {
    fn dead(&self) -> u64 {
        self.held.saturating_sub(self.live)
    }

    fn is_dead_by(&self, permille: u64) -> bool {
        self.dead().saturating_mul(1000) > self.held.saturating_mul(permille)
    }

    /// Moving what lives in it: read once, written as its share of a block, read back, removed.
    pub(crate) fn cost_of_emptying(&self, price: &Price) -> Cost {
        let (k, n) = (u64::from(self.k).max(1), u64::from(self.n));
        let written = self.live.saturating_mul(n) / k;
        let share = |whole: u64| (whole * self.live).div_ceil(self.held.max(1));
        Cost { writes: share(n), reads: k + share(n), deletes: n, bytes_read: self.live + written, bytes_written: written, microdollars: 0 }
            .priced(price)
    }

    fn pays(&self, price: &Price) -> bool {
        let freed = self.stored.saturating_sub(self.live.saturating_mul(u64::from(self.n)) / u64::from(self.k).max(1));
        price.storage_month(freed).saturating_mul(HORIZON_MONTHS) >= self.cost_of_emptying(price).microdollars
    }
}

/// The blocks that are worth emptying, of those that have something alive and something dead in them, the deadest first.
///
/// `all` is the sum of [`Block::held`] over every block that stays, these among them, and `dead` what of it is dead: the bound on dead bytes is about that.
pub(crate) fn sparse(blocks: Vec<Block>, (all, dead): (u64, u64), bounds: Bounds, price: &Price) -> Vec<Block> {
    let mut chosen: Vec<Block> = blocks;
    chosen.sort_by_key(|block| (std::cmp::Reverse(u128::from(block.dead()) * 1_000_000 / u128::from(block.held.max(1))), block.id));
    let (mut all, mut dead) = (all, dead);
    chosen.retain(|block| {
        let over = bounds.most_dead_permille.is_some_and(|most| u128::from(dead) * 1000 > u128::from(all) * u128::from(most));
        let goes = over || (block.is_dead_by(bounds.dead_permille) && block.pays(price));
        if goes {
            dead = dead.saturating_sub(block.dead());
            all = all.saturating_sub(block.dead());
        }
        goes
    });
    chosen.truncate(MOST_EMPTIED);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(id: u8, live: u64) -> Block {
        Block { id: BlockId::from_bytes([id; 16]), held: 12_000_000, live, stored: 20_000_000, k: 3, n: 5 }
    }

    fn price() -> Price {
        Price { storage_gb_month: 23_000, write_million: 5_000_000, read_million: 400_000, egress_gb: 90_000, ..Price::default() }
    }

    #[test]
    fn more_than_half_dead_and_worth_its_price() {
        let blocks = || vec![block(1, 12_000_000), block(2, 5_900_000), block(3, 6_000_000), block(4, 100_000)];
        let chosen = |price: &Price| -> Vec<u8> {
            sparse(blocks(), (48_000_000, 24_000_000), Bounds::default(), price).iter().map(|block| block.id.as_bytes()[0]).collect()
        };
        assert_eq!(chosen(&Price::default()), [4, 2], "half dead is not more than half dead");
        // 10.2 MB freed for six months: 1404 micro-dollars; 15.7 MB of egress and 11 requests: 1440.
        assert_eq!(chosen(&price()), [4], "moving the other costs more than its bytes");
    }

    #[test]
    fn a_bound_on_dead_bytes_asks_nobodys_price() {
        let bounds = Bounds { most_dead_permille: Some(50), ..Bounds::default() };
        let blocks = vec![block(1, 11_900_000), block(2, 11_000_000), block(3, 6_000_000)];
        let chosen = sparse(blocks, (36_000_000, 7_100_000), bounds, &Price { egress_gb: u64::MAX / 1000, ..price() });
        assert_eq!(chosen.iter().map(|block| block.id.as_bytes()[0]).collect::<Vec<_>>(), [3], "then 1.1 of 30 are left: below 5 %");
    }

    #[test]
    fn the_deadest_goes_first_by_its_share_and_not_by_its_bytes() {
        let small = Block { held: 1_000_000, live: 100_000, ..block(1, 0) };
        let blocks = vec![block(2, 3_000_000), small, block(3, 2_000_000)];
        let chosen = sparse(blocks.clone(), (50_000_000, 20_000_000), Bounds::default(), &Price::default());
        assert_eq!(chosen, [blocks[1], blocks[2], blocks[0]], "90 % of it, 83 % and 75 %");
        let alike = vec![block(9, 1_000_000), block(4, 1_000_000)];
        assert_eq!(sparse(alike.clone(), (50_000_000, 22_000_000), Bounds::default(), &Price::default()), [alike[1], alike[0]]);
    }

    /// What was chosen counts no more, neither among the dead bytes nor among all: the bound is about what is left then.
    #[test]
    fn as_many_are_emptied_as_the_bound_on_dead_bytes_takes_and_no_more() {
        let of = |id: u8, dead: u64| Block { held: 100, live: 100 - dead, stored: 200, ..block(id, 0) };
        let blocks = || vec![of(1, 60), of(2, 50), of(3, 40)];
        let chosen = |most: u64, all: u64| {
            let bounds = Bounds { most_dead_permille: Some(most), ..Bounds::default() };
            let dear = Price { egress_gb: u64::MAX / 1000, ..price() };
            sparse(blocks(), (all, 150), bounds, &dear).iter().map(|block| block.id.as_bytes()[0]).collect::<Vec<_>>()
        };
        assert_eq!(chosen(150, 1000), [0; 0], "150 of 1000 may be dead, and are");
        assert_eq!(chosen(149, 1000), [1]);
        assert_eq!(chosen(95, 1000), [1, 2], "90 of 940 are still more than 9.5 %, though they are not of 1000");
        assert_eq!(chosen(96, 1000), [1]);
        assert_eq!(chosen(0, 1000), [1, 2, 3]);
        let bounds = Bounds { dead_permille: 1000, ..Bounds::default() };
        assert!(sparse(blocks(), (1000, 150), bounds, &Price::default()).is_empty(), "without a bound only by its own share");
    }

    /// Six months of what the providers would not have to keep, against what reading and writing the rest costs.
    #[test]
    fn it_pays_to_the_very_microdollar() {
        // Of 20 MB 5 are still needed: 15 MB for six months are 720. 3 MB are read, 5 are written and read back: 720.
        let block = block(1, 3_000_000);
        let price = Price { storage_gb_month: 8_000, egress_gb: 90_000, ..Price::default() };
        assert_eq!((price.storage_month(15_000_000) * HORIZON_MONTHS, block.cost_of_emptying(&price).microdollars), (720, 720));
        assert!(block.pays(&price));
        assert!(!block.pays(&Price { egress_gb: 90_001, ..price.clone() }));
        let wide = Block { stored: 4_000_000, ..block };
        assert!(wide.pays(&Price::default()) && !wide.pays(&price), "it frees nothing");
    }

    #[test]
    fn costs_add_up_figure_by_figure() {
        let one = Cost { writes: 1, reads: 2, deletes: 3, bytes_read: 4, bytes_written: 5, microdollars: 6 };
        let mut sum = Cost { writes: 10, reads: 20, deletes: 30, bytes_read: 40, bytes_written: 50, microdollars: 60 };
        sum.add(&one);
        assert_eq!(sum, Cost { writes: 11, reads: 22, deletes: 33, bytes_read: 44, bytes_written: 55, microdollars: 66 });
        let priced = Cost { microdollars: 9, ..one }.priced(&Price {
            write_million: 7_000_000,
            read_million: 3_000_000,
            egress_gb: 1 << 30,
            ..Price::default()
        });
        assert_eq!(priced, Cost { microdollars: 7 + 6 + 5, ..one }, "deleting is free, and so is sending to a provider");
    }

    #[test]
    fn moving_costs_what_is_alive() {
        let cost = block(1, 6_000_000).cost_of_emptying(&price());
        assert_eq!((cost.writes, cost.reads, cost.deletes), (3, 6, 5));
        assert_eq!((cost.bytes_read, cost.bytes_written), (16_000_000, 10_000_000));
        assert_eq!(cost.microdollars, 3 * 5 + 3 + 1440, "6 reads are 2.4, rounded up with the writes");
    }

    #[test]
    fn prices_are_meant_figure_by_figure_and_nobody_is_free() {
        let dear = Price { storage_gb_month: 30, write_million: 50, read_million: 70, egress_gb: 90, ..Price::default() };
        let cheap = Price { storage_gb_month: 10, write_million: 20, read_million: 30, egress_gb: 40, ..Price::default() };
        let both = mean(&[&dear, &cheap]);
        assert_eq!((both.storage_gb_month, both.write_million, both.read_million, both.egress_gb), (20, 35, 50, 65));
        assert_eq!(mean(&[]).storage_gb_month, 0);
    }

    #[test]
    fn one_collection_empties_so_many_blocks_at_most() {
        let most = u32::try_from(MOST_EMPTIED).unwrap();
        let numbered = |number: u32| {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&number.to_be_bytes());
            Block { id: BlockId::from_bytes(id), ..block(0, 100_000) }
        };
        let chosen = sparse((0..=most).map(numbered).collect(), (1 << 50, 1 << 49), Bounds::default(), &Price::default());
        assert_eq!(chosen.len(), MOST_EMPTIED);
    }
}
