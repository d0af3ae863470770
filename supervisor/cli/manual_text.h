#pragma once

// What the manual pages say after the options, in troff.
namespace creel::cli {

inline constexpr char kCreelManual[] = R"(.SH EXIT STATUS
0: done. 1: it failed, and the message says what to do. 2: misuse.
.B creel exec
exits as the command did; 125 if it could not be asked for, 126 if it cannot be run, 127 if there is no
such command, and 128 and the signal's number if it was killed.
.SH ENVIRONMENT
.TP
.B CREEL_RUN_DIR
The run folder of creeld (default: /run/creel).
.TP
.BR CREEL_GATEWAY_SOCKET ", " CREEL_OPERATOR_SOCKET
The two doors, if they lie elsewhere.
.SH SEE ALSO
.BR creeld (8),
.BR creel.yaml (5),
.BR creel\-verify (1)
)";

inline constexpr char kCreeldManual[] = R"(.SH SIGNALS
.TP
.B SIGHUP
Reads the configuration again; a bad one changes nothing and is told in the log.
.TP
.BR SIGTERM ", " SIGINT
Ends creeld. Containers stay, and are adopted at the next start.
.SH FILES
.TP
.I /etc/creel/creel.yaml
The configuration.
.TP
.I /run/creel
The sockets of gateways and operator, and a folder for each sandbox.
.TP
.I /var/lib/creel
The database, workspaces, the record, evidence.
.SH ENVIRONMENT
.TP
.B DOCKER_HOST
The engine, if the configuration names none.
.SH EXIT STATUS
0: it was asked to end. 1: it failed, and the message says what to do. 2: misuse.
.SH SEE ALSO
.BR creel (1),
.BR creel.yaml (5)
)";

inline constexpr char kVerifyManual[] = R"(.SH EXIT STATUS
0: sound. 1: not sound, or it could not be read. 2: misuse.
.SH SEE ALSO
.BR creel (1)
)";

}  // namespace creel::cli
