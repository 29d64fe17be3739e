use super::*;

const NOW: Timestamp = Timestamp::from_unix_millis(1_000_000);

fn entry(sequence: u64, partition: u16) -> Entry {
    let enqueued = Timestamp::from_unix_millis(i64::try_from(sequence).unwrap());
    Entry {
        partition,
        mark: Mark { sequence, enqueued },
        message: Message::new(format!("message {sequence}")).encode(),
    }
}

fn journal() -> (tempfile::TempDir, PathBuf, Journal) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let journal = Journal::open(&path).unwrap();
    (directory, path, journal)
}

fn sequences(journal: &Journal, partition: u16) -> Vec<u64> {
    let mut messages = journal.messages(partition).unwrap();
    std::iter::from_fn(|| messages.next().unwrap())
        .map(|kept| {
            assert_eq!(kept.message.body, format!("message {}", kept.mark.sequence));
            kept.mark.sequence
        })
        .collect()
}

#[test]
fn what_was_taken_is_there_after_a_restart_and_is_not_taken_twice() {
    let (_directory, path, mut journal) = journal();
    journal.append(&[entry(3, 0), entry(5, 1)], NOW).unwrap();
    drop(journal);

    let mut again = Journal::open(&path).unwrap();
    again
        .append(&[entry(3, 0), entry(5, 1), entry(6, 0)], NOW.plus_millis(9))
        .unwrap();

    assert_eq!((sequences(&again, 0), sequences(&again, 1)), (vec![3, 6], vec![5]));
    assert_eq!(again.window().unwrap().started, NOW);
}

#[test]
fn what_went_into_files_is_not_taken_again_after_a_restart() {
    let (_directory, path, mut journal) = journal();
    journal.append(&[entry(3, 0), entry(5, 1)], NOW).unwrap();

    journal.start_over().unwrap();
    drop(journal);
    let mut again = Journal::open(&path).unwrap();
    assert_eq!(again.window(), None);
    again.append(&[entry(5, 1), entry(6, 1)], NOW).unwrap();

    assert_eq!(sequences(&again, 1), [6]);
}

#[test]
fn a_sequence_that_was_given_out_anew_is_another_message() {
    let (_directory, _path, mut journal) = journal();
    journal.append(&[entry(7, 0), entry(9, 0)], NOW).unwrap();
    let mut later = entry(8, 0);
    later.mark.enqueued = Timestamp::from_unix_millis(500_000);

    journal.append(&[later], NOW).unwrap();

    assert_eq!(sequences(&journal, 0), [7, 9, 8]);
}

#[test]
fn wherever_an_append_was_cut_off_the_records_before_it_are_whole() {
    let (_directory, path, mut journal) = journal();
    journal.append(&[entry(1, 0)], NOW).unwrap();
    let whole = usize::try_from(journal.length).unwrap();
    journal.append(&[entry(2, 0)], NOW).unwrap();
    let bytes = std::fs::read(&path).unwrap();

    for length in whole..bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let mut cut = Journal::open(&path).unwrap();
        assert_eq!(sequences(&cut, 0), [1], "cut at {length}");
        cut.append(&[entry(2, 0), entry(3, 0)], NOW).unwrap();
        assert_eq!(sequences(&cut, 0), [1, 2, 3], "cut at {length}");
    }
}

#[test]
fn a_file_that_is_no_journal_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    std::fs::write(&path, [b'x'; 64]).unwrap();

    let refused = Journal::open(&path).unwrap_err();

    assert!(refused.to_string().contains("move it away"), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), [b'x'; 64]);
}
