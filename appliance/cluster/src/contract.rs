//! The test that every engine of the coupling facility must pass. Engines call it from their own tests.

use crate::coupling::{CouplingError, CouplingFacility, KEY_MAX, RECORD_MAX};

/// Runs the whole contract against an engine whose store is empty.
///
/// # Panics
/// When the engine breaks the contract: it is a test.
///
/// # Errors
/// Those of the engine, which a good one does not have here.
pub async fn engine_contract<E: CouplingFacility>(engine: &E) -> Result<(), CouplingError> {
    counters(engine).await?;
    limits(engine).await?;
    records(engine).await?;
    comparisons(engine).await?;
    refusals(engine).await;
    let incarnation = engine.incarnation().await?;
    assert_eq!(engine.incarnation().await?, incarnation, "a store has one incarnation");
    Ok(())
}

async fn counters<E: CouplingFacility>(engine: &E) -> Result<(), CouplingError> {
    assert_eq!(engine.read("c/a").await?, 0, "an absent counter reads 0");
    assert_eq!(engine.fetch_add("c/a", 10, u64::MAX).await?, 0..10);
    assert_eq!(engine.fetch_add("c/a", 5, u64::MAX).await?, 10..15, "ranges follow each other");
    assert_eq!(engine.fetch_add("c/b", 1, u64::MAX).await?, 0..1, "counters are apart");
    assert_eq!(engine.read("c/a").await?, 15);
    assert_eq!(engine.raise("c/a", 100).await?, 100);
    assert_eq!(engine.raise("c/a", 50).await?, 100, "a counter is never lowered");
    assert_eq!(engine.fetch_add("c/a", 1, u64::MAX).await?, 100..101, "raised numbers are not handed out");
    assert_eq!(engine.raise("c/new", 7).await?, 7);
    Ok(())
}

async fn limits<E: CouplingFacility>(engine: &E) -> Result<(), CouplingError> {
    const END: u64 = 1 << 32;
    assert_eq!(engine.raise("c/end", END - 3).await?, END - 3);
    assert_eq!(engine.fetch_add("c/end", 2, END).await?, END - 3..END - 1);
    assert_eq!(engine.fetch_add("c/end", 4096, END).await?, END - 1..END, "clipped at the limit");
    assert!(engine.fetch_add("c/end", 1, END).await?.is_empty(), "exhausted");
    assert_eq!(engine.read("c/end").await?, END, "and stays so");
    assert!(engine.fetch_add("c/end", 1, 10).await?.is_empty(), "a limit below the counter gives nothing");
    assert_eq!(engine.read("c/end").await?, END, "and lowers nothing");
    assert_eq!(engine.raise("c/top", u64::MAX - 1).await?, u64::MAX - 1);
    assert_eq!(engine.fetch_add("c/top", u64::MAX, u64::MAX).await?, u64::MAX - 1..u64::MAX, "no wrap");
    Ok(())
}

async fn records<E: CouplingFacility>(engine: &E) -> Result<(), CouplingError> {
    assert_eq!(engine.get("r/1").await?, None);
    engine.put("r/2", b"two").await?;
    engine.put("r/1", b"one").await?;
    engine.put("r/1", b"uno").await?;
    engine.put("s/1", b"other").await?;
    engine.put("r/empty", b"").await?;
    assert_eq!(engine.get("r/1").await?.as_deref(), Some(&b"uno"[..]));
    assert_eq!(engine.get("r/empty").await?.as_deref(), Some(&b""[..]));
    let listed = engine.list("r/").await?;
    let keys: Vec<&str> = listed.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["r/1", "r/2", "r/empty"], "in order, and only those with the prefix");
    assert!(engine.delete("r/1").await?);
    assert!(!engine.delete("r/1").await?, "there was none");
    assert_eq!(engine.get("r/1").await?, None);
    let _ = engine.fetch_add("r/2", 3, u64::MAX).await?;
    assert_eq!(engine.get("r/2").await?.as_deref(), Some(&b"two"[..]), "a counter and a record may share a name");
    assert!(engine.delete("r/2").await?);
    assert_eq!(engine.read("r/2").await?, 0, "delete takes both");
    Ok(())
}

async fn comparisons<E: CouplingFacility>(engine: &E) -> Result<(), CouplingError> {
    assert!(engine.cas("x", None, Some(b"1")).await?, "absent as expected");
    assert!(!engine.cas("x", None, Some(b"2")).await?, "it is there");
    assert!(!engine.cas("x", Some(b"2"), Some(b"3")).await?, "it is something else");
    assert!(engine.cas("x", Some(b"1"), Some(b"3")).await?);
    assert_eq!(engine.get("x").await?.as_deref(), Some(&b"3"[..]));
    assert!(engine.cas("x", Some(b"3"), None).await?, "deleted");
    assert_eq!(engine.get("x").await?, None);
    assert!(engine.cas("x", None, None).await?, "nothing instead of nothing");
    Ok(())
}

async fn refusals<E: CouplingFacility>(engine: &E) {
    let long = "k".repeat(KEY_MAX + 1);
    for key in ["", long.as_str()] {
        let refused = engine.fetch_add(key, 1, 10).await;
        assert!(matches!(refused, Err(CouplingError::BadRequest(_))), "{refused:?}");
        assert!(matches!(engine.put(key, b"").await, Err(CouplingError::BadRequest(_))));
        assert!(matches!(engine.cas(key, None, Some(b"")).await, Err(CouplingError::BadRequest(_))));
    }
    let huge = vec![0; RECORD_MAX + 1];
    assert!(matches!(engine.put("huge", &huge).await, Err(CouplingError::BadRequest(_))));
    assert!(matches!(engine.cas("huge", None, Some(&huge)).await, Err(CouplingError::BadRequest(_))));
}
