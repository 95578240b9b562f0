# Reads what `cargo test -- --show-output` prints. Hides what successful tests printed, but for lines that start with
# SKIPPED:, and ends with their number. With CI set a skipped test is a failure.
/^successes:$/ { hidden = 1 }
/^(failures:|test result:)/ { hidden = 0 }
/^SKIPPED:/ { skipped++; print; fflush(); next }
!hidden { print; fflush() }
END {
    printf "SKIPPED: %d in all\n", skipped
    if (skipped > 0 && ENVIRON["CI"] != "") exit 1
}
