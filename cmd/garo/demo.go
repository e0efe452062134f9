package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/internal/demo"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
)

// records says where the records are, and how they are read.
const records = `
The log is %s. What the records tell, in the order of time:

  sqlite3 %s "SELECT h.value ->> 'at' AS at, kind, i.id, h.value ->> 'state', h.value ->> 'reason'
    FROM items AS i, json_each(item, '$.history') AS h ORDER BY at"
`

func demoCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show GARO at work on this machine, in under a minute",
		Long: `demo runs a story on a local system whose clocks are 60 times as fast: runners are
found, launched, shared, stopped, interrupted and ended, for requests and for jobs that
just name a label. Then it checks, from the records and from the simulated EC2 and
GitHub, whether GARO's promises held, and ends with status 0 only if all of them did.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			where := dir
			if where == "" {
				tmp, err := os.MkdirTemp("", "garo-demo-")
				if err != nil {
					return err
				}
				where = tmp
			} else if entries, err := os.ReadDir(where); err == nil && len(entries) > 0 {
				return usage("--dir %s is not empty: the story begins with an empty one", where)
			}
			err := demo.Run(cmd.Context(), cmd.OutOrStdout(), where)
			interrupted := cmd.Context().Err() != nil
			if dir == "" && (err == nil || interrupted) {
				if err := os.RemoveAll(where); err != nil {
					return err
				}
			}
			if interrupted {
				return errInterrupted
			}
			if err != nil {
				return fmt.Errorf("%w; the records are in %s", err, where)
			}
			if dir != "" {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), records, filepath.Join(dir, "log"), filepath.Join(dir, local.StoreFile))
			}
			return err
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "keep the records in this empty directory (default a temporary one)")
	return c
}
