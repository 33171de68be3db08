package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/config"
	_ "github.com/gostor/gotgt/pkg/port/iscsit" // registers the driver "iscsi"
	"github.com/gostor/gotgt/pkg/scsi"
	_ "github.com/gostor/gotgt/pkg/scsi/backingstore" // registers the store "file"
)

const deviceID = 1001

// serve configures gotgt and starts it; the channel delivers the end of its listener.
func serve(o options) (<-chan error, error) {
	scsi.RegisterBackingStore("ram", func() (api.BackingStore, error) {
		return &ramStore{bytes: make([]byte, o.sizeBytes)}, nil
	})
	path := "ram:lun"
	if o.storePath != "" {
		// gotgt takes the size of the LUN from the file.
		if err := sizeFile(o.storePath, o.sizeBytes); err != nil {
			return nil, err
		}
		path = "file:" + o.storePath
	}
	cfg := &config.Config{
		Storages:     []config.BackendStorage{{DeviceID: deviceID, Path: path, Online: true, ThinProvisioning: true, BlockShift: o.blockShift}},
		ISCSITargets: map[string]config.ISCSITarget{o.iqn: {TPGTs: map[string][]uint64{}, LUNs: map[string]uint64{"0": deviceID}}},
	}
	for i, portal := range o.portals {
		// Each portal needs a portal group of its own: the port designators of VPD page 0x83 are made from the group tag and would coincide.
		cfg.ISCSIPortals = append(cfg.ISCSIPortals, config.ISCSIPortalInfo{ID: uint16(i), Portal: portal})
		cfg.ISCSITargets[o.iqn].TPGTs[strconv.Itoa(i+1)] = []uint64{uint64(i)}
	}
	if err := scsi.InitSCSILUMap(cfg); err != nil {
		return nil, fmt.Errorf("gotgt refused the LUN: %w", err)
	}
	driver, err := scsi.NewTargetDriver("iscsi", &scsi.SCSITargetService{})
	if err != nil {
		return nil, fmt.Errorf("gotgt has no iSCSI driver: %w", err)
	}
	if err := driver.NewTarget(o.iqn, cfg); err != nil {
		return nil, fmt.Errorf("gotgt refused the target %s: %w", o.iqn, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- driver.Run(o.port) }()
	return ended, nil
}

func sizeFile(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}
