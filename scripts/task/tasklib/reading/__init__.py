"""Raw files, whatever their format and encoding -> rows, each with its file and line."""
