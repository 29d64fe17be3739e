//! Recorded machine data to replay: *WaterFlow*, hourly flow of a water main (see `data/README.md` for source and licence).

/// One recorded reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// When it was taken; ISO 8601 with the offset of its place.
    pub time: String,
    /// The hour of its day, 0 to 23, at its place.
    pub hour: u8,
    /// Flow in litres per second.
    pub flow: f64,
}

/// Readings in the order they were taken.
#[derive(Clone, Debug)]
pub struct Recording(Vec<Reading>);

/// Why a text is not a recording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the recording is not `time,flow`: `{text}`")]
pub struct InvalidRecording {
    /// The line, from 1.
    pub line: usize,
    /// What it holds.
    pub text: String,
}

impl Recording {
    /// The recording that comes with Holm.
    #[must_use]
    pub fn water_flow() -> Self {
        Self::parse(include_str!("../data/water-flow.csv")).expect("the recording in the source tree is well formed")
    }

    /// Reads comma-separated lines of time and flow, after one line of headings.
    ///
    /// # Errors
    /// The first line that is not a reading.
    pub fn parse(text: &str) -> Result<Self, InvalidRecording> {
        let reading = |(index, line): (usize, &str)| {
            parse_line(line).ok_or_else(|| InvalidRecording {
                line: index + 1,
                text: line.to_owned(),
            })
        };
        text.lines()
            .enumerate()
            .skip(1)
            .map(reading)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The readings.
    #[must_use]
    pub fn readings(&self) -> &[Reading] {
        &self.0
    }
}

fn parse_line(line: &str) -> Option<Reading> {
    let (time, flow) = line.split_once(',')?;
    let hour = time.get(11..13)?.parse().ok().filter(|hour| *hour < 24)?;
    let flow = flow.parse().ok().filter(|flow: &f64| flow.is_finite())?;
    Some(Reading {
        time: time.to_owned(),
        hour,
        flow,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recording_has_its_1268_readings() {
        let recording = Recording::water_flow();

        assert_eq!(recording.readings().len(), 1268);
        assert_eq!(
            recording.readings()[0],
            Reading {
                time: "2022-03-20T11:00:00+01:00".into(),
                hour: 11,
                flow: 100.59
            }
        );
    }

    #[test]
    fn a_broken_line_is_named() {
        let broken = Recording::parse("Time,Flow\n2022-03-20T11:00:00+01:00,1.5\n2022-03-20,x");

        assert_eq!(
            broken.map(|_| ()),
            Err(InvalidRecording {
                line: 3,
                text: "2022-03-20,x".into()
            })
        );
    }
}
