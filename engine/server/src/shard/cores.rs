//! Which shard runs on which core.

/// The core of every shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CorePlan {
    /// The core of each shard; `None` if the affinity mask cannot be read, so that the shard is not
    /// pinned.
    pub(crate) cores: Vec<Option<usize>>,
    /// Whether every shard has a core of its own.
    pub(crate) exclusive: bool,
}

/// Distributes `shards` shards (not set: one per core) over the cores this process may use, in
/// order. More shards than cores take turns; that is allowed for tests and to try a larger layout.
pub(crate) fn plan(allowed: &[usize], shards: Option<u16>) -> CorePlan {
    let count = shards.map_or(allowed.len().clamp(1, 1024), usize::from);
    let cores = (0..count).map(|shard| {
        let turn = shard.checked_rem(allowed.len())?;
        Some(allowed[turn])
    });
    CorePlan { cores: cores.collect(), exclusive: count <= allowed.len() }
}

impl CorePlan {
    /// The text in the banner, such as `2 shards on cores 0-1`.
    pub(crate) fn describe(&self) -> String {
        let count = self.cores.len();
        let noun = if count == 1 { "shard" } else { "shards" };
        let mut distinct: Vec<usize> = self.cores.iter().flatten().copied().collect();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.is_empty() {
            return format!("{count} {noun}, not pinned (the CPU mask cannot be read)");
        }
        let cores = if distinct.len() == 1 { "core" } else { "cores" };
        let shared = if self.exclusive { "" } else { ", shared" };
        format!("{count} {noun} on {cores} {}{shared}", ranges(&distinct))
    }
}

/// Ascending numbers as ranges: `0-3, 6`.
fn ranges(ascending: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &core in ascending {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => parts.push((core, core)),
        }
    }
    let texts: Vec<String> = parts
        .iter()
        .map(
            |(first, last)| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            },
        )
        .collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_shard_per_allowed_core() {
        let plan = plan(&[2, 5], None);
        assert_eq!(plan, CorePlan { cores: vec![Some(2), Some(5)], exclusive: true });
        assert_eq!(plan.describe(), "2 shards on cores 2, 5");
    }

    #[test]
    fn under_a_mask_of_one_core_there_is_one_shard_on_it() {
        let plan = plan(&[0], None);
        assert_eq!(plan.cores, [Some(0)]);
        assert_eq!(plan.describe(), "1 shard on core 0");
    }

    #[test]
    fn more_shards_than_cores_share_them_in_turn() {
        let plan = plan(&[0, 1], Some(5));
        assert_eq!(plan.cores, [Some(0), Some(1), Some(0), Some(1), Some(0)]);
        assert!(!plan.exclusive);
        assert_eq!(plan.describe(), "5 shards on cores 0-1, shared");
    }

    #[test]
    fn fewer_shards_than_cores_take_the_first() {
        let plan = plan(&[0, 1, 2, 3, 8], Some(4));
        assert!(plan.exclusive);
        assert_eq!(plan.describe(), "4 shards on cores 0-3");
    }

    #[test]
    fn without_a_readable_mask_nothing_is_pinned() {
        let plan = plan(&[], None);
        assert_eq!(plan, CorePlan { cores: vec![None], exclusive: false });
        assert!(plan.describe().contains("not pinned"));
    }
}
