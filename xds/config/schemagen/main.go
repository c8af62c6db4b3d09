// Command schemagen writes configs/gateway.schema.json and docs/config.md; run
// it at the root of the module: go run ./xds/config/schemagen
package main

import (
	"fmt"
	"os"

	"tollgate/xds/config/schema"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // the main of a generator
	}
}

func run() error {
	comments, err := schema.ReadComments(os.DirFS("xds/config/syntax"))
	if err != nil {
		return err
	}
	json, err := schema.JSON(comments)
	if err != nil {
		return err
	}
	if err := os.WriteFile("configs/gateway.schema.json", json, 0o644); err != nil {
		return err
	}
	return os.WriteFile("docs/config.md", schema.Markdown(comments), 0o644)
}
