// Package pagetest opens the API's page in a real Chromium, over a local system with a
// history, and looks at what people see: the views, by keyboard, in two widths, in light
// and dark, with records that are hostile, and with axe-core. It has tests alone.
package pagetest
