//! All images that a power cut could have left, at every moment of a recorded run.

use crate::disk::volume::{Image, Pending, Step, Volume};
use crate::random::Random;

use super::expected::{Expected, Note};

/// How many random subsets of the pending changes are tried at each moment.
const SUBSETS: usize = 6;

/// How many places are tried to tear a long run of equal bytes; other places would give the same
/// image.
const BLANK_TEARS: usize = 3;

/// One entry of a recorded run.
#[derive(Clone, Debug)]
pub enum Traced {
    /// The disk made a step.
    Step(Step),
    /// A client learned something.
    Note(Note),
    /// The power was cut, and this image was left.
    Cut(Image),
}

/// Calls `judge` with each image that a power cut could have left at any moment of a run, and with
/// what that image must contain. Returns the number of images, at most `limit`.
///
/// # Errors
/// The first failure, with its moment.
pub fn judge_all(
    trace: &[Traced],
    seed: u64,
    limit: u64,
    mut judge: impl FnMut(&Image, &Expected) -> Result<(), String>,
) -> Result<u64, String> {
    let mut random = Random::new(seed);
    let (mut volume, mut expected) = (Volume::default(), Expected::default());
    let mut count = 0;
    for (moment, traced) in trace.iter().enumerate() {
        let described =
            |error| format!("moment {moment} of {}, {}: {error}", trace.len(), kind(traced));
        let changes = match traced {
            Traced::Step(step) => {
                volume.make(step);
                true
            }
            Traced::Cut(image) => {
                volume = Volume::of(image.clone());
                true
            }
            Traced::Note(note) => {
                expected.note(note);
                // Only these notes make an image wrong that was right before.
                matches!(note, Note::Confirmed(_) | Note::SettledForGood(_) | Note::Closed)
            }
        };
        // Successive notes belong to the same moment.
        let more = matches!(trace.get(moment + 1), Some(Traced::Note(_)));
        if !changes || (more && matches!(traced, Traced::Note(_))) {
            continue;
        }
        for image in images(&volume, &mut random) {
            judge(&image, &expected).map_err(described)?;
            count += 1;
            if count == limit {
                return Ok(count);
            }
        }
    }
    Ok(count)
}

fn kind(traced: &Traced) -> String {
    match traced {
        Traced::Step(Step::Write(file, offset, bytes)) => {
            format!("write of {} at {offset} of {file:?}", bytes.len())
        }
        Traced::Step(step) => format!("{step:?}"),
        Traced::Note(note) => {
            let text = format!("{note:?}");
            text.chars().take(80).collect()
        }
        Traced::Cut(_) => "cut".into(),
    }
}

/// What a power cut could leave: none of the pending changes, all of them, all but one, only one,
/// one write torn at each sector, and random subsets.
fn images<'a>(volume: &'a Volume, random: &'a mut Random) -> impl Iterator<Item = Image> + 'a {
    let pending = volume.pending();
    let several = pending.len() > 1;
    let whole = [false, true].into_iter().filter(|_| !pending.is_empty());
    let whole = whole.map(|kept| volume.image(|_, _| kept));
    let untouched = pending.is_empty().then(|| volume.durable().clone());
    let singles = (0..pending.len()).filter(move |_| several).flat_map(|index| {
        [true, false].map(|alone| volume.image(|other, _| (other == index) == alone))
    });
    let torn = pending.iter().enumerate().flat_map(move |(index, change)| {
        tears(change).flat_map(move |end| {
            // The other changes are all kept, or all lost.
            let rest = [true, false].into_iter().filter(move |kept| *kept || several);
            rest.map(move |kept| {
                volume.image(|other, sector| if other == index { sector < end } else { kept })
            })
        })
    });
    let subsets = if pending.is_empty() { 0 } else { SUBSETS };
    let subsets = (0..subsets).map(|_| {
        let percent = random.pick(&[10, 50, 50, 90]);
        volume.image(|_, _| random.chance(percent))
    });
    untouched.into_iter().chain(whole).chain(singles).chain(torn).chain(subsets)
}

/// The sectors before which a write can be torn.
fn tears(change: &Pending) -> impl Iterator<Item = usize> + use<> {
    let sectors = change.sectors();
    let blank = match change {
        Pending::Write(_, _, bytes) => bytes.iter().all(|byte| *byte == 0),
        _ => false,
    };
    let stride = if blank { sectors.div_ceil(BLANK_TEARS).max(1) } else { 1 };
    (1..sectors).step_by(stride)
}
