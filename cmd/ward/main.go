// Command ward is the authorization server and its command line; see package cli.
package main

import (
	"os"

	"github.com/ward-authz/ward/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
