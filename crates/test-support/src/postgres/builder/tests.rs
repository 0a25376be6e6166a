use super::*;

#[test]
fn given_settings_come_after_ours_and_are_quoted() {
    let builder = PgCluster::builder()
        .setting("work_mem", "1MB")
        .setting("search_path", "it's");
    let text = builder.settings_text();
    assert!(
        text.ends_with("fsync = off\nfull_page_writes = off\nmax_wal_size = 256MB\nwork_mem = '1MB'\nsearch_path = 'it''s'\n"),
        "{text}"
    );
}

#[test]
fn a_durable_cluster_syncs() {
    assert!(
        PgCluster::builder()
            .durable(true)
            .settings_text()
            .contains("fsync = on\nfull_page_writes = on\n")
    );
}
