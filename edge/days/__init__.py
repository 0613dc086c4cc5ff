"""Figures for business days."""
